"""API keys of this machine: ``python -m local.keys`` issues, lists and revokes them.

It works while the server runs. ``infra.keys`` does the same for a stage on AWS.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from chalicelib import bootstrap
from chalicelib.bootstrap import Service
from chalicelib.domain.errors import TimersError
from infra.key_commands import add_commands, run_command
from local.address import url
from local.firing import firing_of


def main(words: Sequence[str] | None = None, service: Service | None = None) -> int:
    """Run the command in ``words``, by default this process's; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m local.keys", description=__doc__)
    add_commands(parser)
    arguments = parser.parse_args(words)
    try:
        service = service or bootstrap.service()
        firing_of(service).prepare()
        run_command(arguments, service.api_keys, url(service.settings))
        if arguments.action == "issue" and not service.settings.needs_key:
            print("The server asks for keys only if it is started with: TIMERS_AUTH=keys make run")
    except TimersError as error:
        print(f"webhook-timers: {error.detail}", file=sys.stderr)
        return 1
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
