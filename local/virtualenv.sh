#!/bin/sh
# Runs a command in the virtual environment .venv:
#
#     local/virtualenv.sh run python -m local     # what the server and deployments need
#     local/virtualenv.sh dev ruff check .        # the same, and the tools of development
#
# If .venv does not hold the packages of that set, local/virtualenv.py makes it first. This script
# finds a Python for that: 3.10 to 3.14, or the one that SETUP_PYTHON names.
set -eu
cd "$(dirname "$0")/.."
set_name=$1
command=$2
shift 2

case $set_name in
    run) files="constraints.txt requirements.txt requirements-run.txt" ;;
    dev) files="constraints.txt requirements.txt requirements-run.txt requirements-dev.txt" ;;
    *) echo "There is no set $set_name: run or dev" >&2 && exit 2 ;;
esac

# The check of virtualenv.is_current, in a few milliseconds: made from these files, in this place.
is_current() {
    [ -x "$1/bin/python" ] && read -r place <"$1/made-from/place" && [ "$place" = "$1" ] || return 1
    for file in $files; do
        cmp -s "$file" "$1/made-from/$file" || return 1
    done
}

is_usable() {
    "$1" -c '
import sys, sqlite3
if "uv" not in sys.argv:
    import ensurepip, venv
new_enough = sys.version_info >= (3, 10) and sqlite3.sqlite_version_info >= (3, 35)
sys.exit(not new_enough or sys.version_info >= (3, 15))' "$uv" >/dev/null 2>&1
}

find_python() {
    uv=$(command -v uv >/dev/null 2>&1 && echo uv) || true
    for python in ${SETUP_PYTHON:-python3.14 python3.13 python3.12 python3.11 python3.10 python3}; do
        is_usable "$python" && return
    done
    if [ -n "$uv" ] && [ -z "${SETUP_PYTHON:-}" ]; then
        echo "No Python 3.10 to 3.14 here; uv fetches one" >&2
        uv python install --quiet 3.13 && python=$(uv python find 3.13) && return
    fi
    echo "Python 3.10 to 3.14 with venv is needed: brew install python@3.13 (macOS)," \
        "apt install python3-venv (Debian), or uv (https://docs.astral.sh/uv)" >&2
    exit 1
}

# More than once only if another process changes .venv or the requirements at the same moment.
for _ in 1 2 3 4 5; do
    folder=$(cd .venv 2>/dev/null && pwd -P) || folder=
    if [ -z "$folder" ] || ! is_current "$folder" 2>/dev/null; then
        find_python
        "$python" -m local.virtualenv "$set_name"
        continue
    fi
    # A folder whose users/ names a living process is not removed when .venv changes. The process
    # starts from the folder, not through .venv: its packages stay the same as long as it runs.
    for user in "$folder"/users/*; do
        kill -0 "${user##*/}" 2>/dev/null || rm -f "$user"
    done
    [ ! -w "$folder/users" ] || true 2>/dev/null >"$folder/users/$$" || continue
    # Another set-up may have changed .venv before it could see this process.
    [ "$(cd .venv && pwd -P)" = "$folder" ] && exec "$folder/bin/$command" "$@"
done
echo "local/virtualenv.sh: .venv changes all the time; try again" >&2
exit 1
