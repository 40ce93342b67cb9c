"""Time of `make reproduce` in a clone where nothing has been trained, and of the same command once more.

    python -m benchmarks.reproduce [--write-back] [--alignment]

It runs in this clone and wants an empty `runs/`. With --write-back the first run renews the committed outputs of the
notebooks (`make notebooks`) instead of executing copies of them. Between start and end nothing else should work here:
the share of the cores that others used is recorded beside the times.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from benchmarks.measure import between, busy_seconds, record
from rmlib.records import paths
from tools.reproduce import LINE

ALIGNMENT = ("06", "07")


def timed_run(command: list[str]) -> dict[str, Any]:
    """Wall seconds of a make command and of each of its notebooks, and CPU seconds it took; its output passes through.

    Raises CalledProcessError where it fails.
    """
    start = _now()
    done = subprocess.run(command, cwd=paths.root(), stdout=subprocess.PIPE, text=True, check=True)
    took = between(start, _now())
    print(done.stdout, flush=True)
    rows = re.findall(r"^(\d\d)_\w+ +(\d+) ", done.stdout, flags=re.MULTILINE)
    return asdict(took) | {"notebooks": {number: int(seconds) for number, seconds in rows}}


def _now() -> tuple[float, float, float]:
    """`measure.now` with the CPU seconds of finished child processes in the place of this one's."""
    of_children = os.times()
    return time.perf_counter(), of_children.children_user + of_children.children_system, busy_seconds()


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-back", action="store_true", help="renew the committed notebooks by the first run")
    parser.add_argument("--alignment", action="store_true", help="notebooks 06 and 07, on the models of a first run")
    options = parser.parse_args()
    if not options.alignment and paths.runs_dir().is_dir() and any(paths.runs_dir().iterdir()):
        sys.exit("runs/ is not empty, so this would be no first run: move it away")
    numbers = ALIGNMENT if options.alignment else LINE
    arguments = [f"PYTHON={sys.executable}", f"ONLY={','.join(numbers)}"]
    targets = ["notebooks" if options.write_back else "reproduce", "reproduce"]
    found = [timed_run(["make", "--no-print-directory", target, *arguments]) for target in targets]
    outcome = dict(zip(("first", "second"), found, strict=True)) | {"cores": len(os.sched_getaffinity(0))}
    for name, one in zip(("first", "second"), found, strict=True):
        print(f"{name}: {one['seconds'] / 60:.1f} min, others {one['others']:.0%}; {one['notebooks']}")
    record("reproduce", {"notebooks": numbers}, outcome, sum(one["seconds"] for one in found))


if __name__ == "__main__":
    main()
