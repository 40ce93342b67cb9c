"""Milliseconds of a training step with freed memory kept, as `rmlib.training` has it, and given back, as glibc does.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.allocator [--steps 60] [--rounds 3]

Each takes the same steps on the embedded backbone in a fresh process, in turn. A round counts where others used little
of the machine.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence

import pandas as pd

from benchmarks.measure import between, measure, now, record

WARM_UP = 10  # steps before the clock starts
MOST_OTHERS = 0.15  # of all cores


def steps(kept: bool, n_steps: int, folder: str) -> dict[str, float]:
    """Milliseconds of a step after the first few, and the share of the cores that others used meanwhile."""
    os.environ |= {"RMLIB_RUNS": folder, "TQDM_DISABLE": "1"}
    if not kept:  # too late for glibc, which read it when the process started; the library then changes nothing
        os.environ["MALLOC_TOP_PAD_"] = "0"
    from rmlib.experiments.arms import settings_for
    from rmlib.experiments.presets import PRESETS
    from rmlib.sources import load_splits
    from rmlib.training import create_model, train

    settings = settings_for("bt_scaled", PRESETS["embedded"].change(max_steps=WARM_UP + n_steps), seed=0)
    start = now()
    run = train(create_model(settings), load_splits("simulated").train, settings, progress=False)
    spent = run.history["seconds"]  # of the steps alone, added up in the run's log
    ms = 1000 * float(spent.iloc[-1] - spent.iloc[WARM_UP - 1]) / n_steps
    return {"ms": ms, "others": between(start, now()).others}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps that are timed (default: 60)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured, in turn (default: 3)")
    options = parser.parse_args(arguments)
    rows = []
    for number in range(options.rounds):
        for kept in (True, False):
            with tempfile.TemporaryDirectory() as folder:
                measured = measure(steps, kept, options.steps, folder)
            rows.append({"round": number, "kept": kept, **measured.result, "total s": measured.seconds})
    table = pd.DataFrame(rows)
    table["void"] = table.groupby("round")["others"].transform("max") > MOST_OTHERS
    counted = table[~table["void"]].groupby("kept")["ms"].mean()
    ratio = float(counted[False] / counted[True]) if len(counted) == 2 else None
    print(table.round(2).to_string(index=False), f"\ngiven back takes {ratio or float('nan'):.2f} times as long")
    asked = {"steps": options.steps, "rounds": options.rounds}
    outcome = {"runs": table.drop(columns="total s").to_dict("records"), "ratio": ratio}
    record("allocator", asked, outcome, float(table["total s"].sum()))


if __name__ == "__main__":
    main()
