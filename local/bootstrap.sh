#!/bin/sh
# Makes .venv with what requirements-dev.txt names, unless it is there already. Needs Python 3.10
# or newer, or uv; prints one line on how to get one where neither is found.
set -eu
cd "$(dirname "$0")/.."

stamp=.venv/.requirements
wanted=$(cat requirements.txt requirements-dev.txt | cksum)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

usable() {
    "$1" -c 'import sys, sqlite3, venv, ensurepip
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14) or sqlite3.sqlite_version_info < (3, 35))' \
        >/dev/null 2>&1
}

python=
for candidate in python3.14 python3.13 python3.12 python3.11 python3.10 python3; do
    if usable "$candidate"; then
        python=$candidate
        break
    fi
done

rm -rf .venv
echo "Setting up .venv (once)" >&2
if [ -n "$python" ]; then
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
elif command -v uv >/dev/null 2>&1; then
    uv venv --quiet --seed --python 3.13 .venv
    uv pip install --quiet --python .venv/bin/python -r requirements-dev.txt
else
    echo "Python 3.10 to 3.14 with venv is needed: brew install python@3.13 (macOS)," \
        "apt install python3-venv (Debian), or uv (https://docs.astral.sh/uv)" >&2
    exit 1
fi
echo "$wanted" >"$stamp"
