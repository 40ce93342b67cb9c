"""Command line: write, check or describe the simulated data of the repository."""

import argparse
import sys
from pathlib import Path

from rmlib.schema import DataError
from rmlib.sources.simulated import embedded
from rmlib.sources.simulated.comparison import compare


def main() -> int:
    """Run one of the commands; 1 where `check` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m rmlib.sources.simulated", description=__doc__)
    parser.add_argument("command", choices=("write", "check", "describe"))
    parser.add_argument("--folder", type=Path, default=embedded.default_folder(), help="default: data/embedded")
    options = parser.parse_args()
    try:
        if options.command == "write":
            embedded.write(options.folder)
        elif options.command == "check":
            embedded.check(options.folder)
        else:
            print(compare(embedded.load(options.folder)).to_string(float_format="%.3f", na_rep="-"))
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
