"""``python -m local.emulator`` runs the emulator until Ctrl-C."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from chalicelib.domain.errors import StartupError
from local.emulator.ministack import COMMAND, HOST, install, process_environment

DEFAULT_PORT = "4566"
DEFAULT_FOLDER = "~/.local/share/webhook-timers/emulator"


def main() -> NoReturn:
    """Install the emulator if it is missing, then replace this process with it."""
    port = os.environ.get("EMULATOR_PORT") or DEFAULT_PORT
    folder = Path(os.environ.get("EMULATOR_DIR") or DEFAULT_FOLDER).expanduser()
    try:
        install()
    except StartupError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr)
        sys.exit(os.EX_UNAVAILABLE)
    print(
        f"An emulator of AWS on http://{HOST}:{port}; Ctrl-C ends it. Its data stays in {folder}\n"
        "In another terminal:\n"
        f"  AWS_ENDPOINT_URL=http://{HOST}:{port} make run ENGINE=aws",
        flush=True,
    )
    os.execve(COMMAND, [str(COMMAND)], process_environment(int(port), folder))  # noqa: S606


if __name__ == "__main__":
    main()
