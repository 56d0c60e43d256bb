"""``python -m bench.capacity`` prints the simulation as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from bench.capacity.document import PAGE, document, page
from infra import cost


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the simulation, or with ``--cost`` the prices; with ``--write`` write the page."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--cost", action="store_true", help="print what a million timers cost")
    choice.add_argument("--write", action="store_true", help="write docs/capacity.md")
    chosen = parser.parse_args(arguments)
    if chosen.write:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    print(json.dumps(cost.document() if chosen.cost else document(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
