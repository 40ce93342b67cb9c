"""Command line of the simulated data: write, check, describe, stream, calibrate."""

import argparse
import logging
import sys
from pathlib import Path

from rmlib.records.errors import DataError
from rmlib.sources.simulated import calibration, embedded
from rmlib.sources.simulated.annotators import PARAMETERS_FILE
from rmlib.sources.simulated.beside_published import compare


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; 1 where `check` finds a difference."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    try:
        match options.command:
            case "write":
                embedded.write(options.folder)
            case "check":
                embedded.check(options.folder)
            case "describe":
                print(compare(embedded.load(options.folder)).to_string(float_format="%.3f", na_rep="-"))
            case "stream":
                print(embedded.stream(options.folder, options.pairs, options.seed))
            case "calibrate":
                fit = calibration.calibrate(options.pairs, options.seed)
                fit.parameters.save(options.file)
                print(fit, fit.parameters, sep="\n")
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rmlib.sources.simulated", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in {
        "write": "write pairs, benchmark, tokenizer, config and their hashes",
        "check": "compare the files with their hashes and with what would be written now",
        "describe": "print the statistics of the pairs beside the published ones",
    }.items():
        command = commands.add_parser(name, help=does)
        command.add_argument("--folder", type=Path, default=embedded.default_folder(), help="default: data/embedded")
    command = commands.add_parser("stream", help="write any number of pairs, and nothing else, in constant memory")
    command.add_argument("--folder", type=Path, required=True)
    command.add_argument("--pairs", type=_count, required=True, help="to generate; repeats are left out and counted")
    command.add_argument("--seed", type=int, required=True, help=f"the embedded data have {embedded.SEED}")
    command = commands.add_parser("calibrate", help="fit the annotators to the published statistics, and print both")
    command.add_argument("--file", type=Path, default=PARAMETERS_FILE, help="default: the values that are in use")
    command.add_argument("--pairs", type=_count, default=calibration.N_PAIRS, help="default: %(default)s")
    command.add_argument("--seed", type=int, default=calibration.SEED, help="default: %(default)s")
    return parser


def _count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
