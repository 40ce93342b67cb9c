"""Seconds of a ladder on the embedded backbone in one process and in two, and of finding it finished again.

    python -m benchmarks.ladder [--steps 100] [--rounds 2]

Each ladder is trained in a fresh process with runs and records of its own, in turn. The load of the machine beside it
is shown, since two processes gain nothing on cores that others use.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence

import pandas as pd

from benchmarks.measure import measure, record

ARMS, SEEDS = ("regression", "bt", "bt_scaled_init"), (0, 1)


def ladder(processes: int, n_steps: int, folder: str) -> dict[str, float]:
    """Seconds of training the ladder, imports and data left out, of asking for it again, and the load before."""
    os.environ |= {"RMLIB_RUNS": f"{folder}/runs", "RMLIB_RESULTS": f"{folder}/results", "TQDM_DISABLE": "1"}
    from rmlib.experiments import run_all
    from rmlib.experiments.presets import PRESETS
    from rmlib.sources import load_splits

    splits, settings = load_splits("simulated"), PRESETS["embedded"].change(max_steps=n_steps)
    load = os.getloadavg()[0]
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        run_all(ARMS, settings, splits, SEEDS, processes=processes)
        seconds.append(time.perf_counter() - start)
    return {"processes": processes, "seconds": seconds[0], "seconds again": seconds[1], "load before": load}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of each run (default: 100)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each is measured, in turn (default: 2)")
    options = parser.parse_args(arguments)
    rows = []
    for processes in options.rounds * (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(ladder, processes, options.steps, folder).result)
    table = pd.DataFrame(rows).astype({"processes": int})
    means = table.groupby("processes")["seconds"].mean()
    print(table.round(2).to_string(index=False), f"\ntwice as many processes: {means[1] / means[2]:.2f} times as fast")
    asked = {"arms": ARMS, "seeds": SEEDS, "steps": options.steps, "rounds": options.rounds}
    record("ladder", asked, {"runs": rows, "ratio": float(means[1] / means[2])}, float(table["seconds"].sum()))


if __name__ == "__main__":
    main()
