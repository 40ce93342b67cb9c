"""Time of a fine-tuning step of the embedded justifier: TRL's SFTTrainer beside the loop of rmlib, taking turns.

    python -m benchmarks.fine_tuning

Same decoder, same examples (which the trainer shuffles once more), fp32, one thread. Time is that of the steps, not of
imports and tokenisation; the losses of both stand beside it.
"""

import argparse
import statistics
from typing import Any

import torch

from benchmarks.measure import measure, record
from rmlib import sources
from rmlib.alignment import justifier
from rmlib.alignment.justifier_training import TRAINERS, FineTuning, drawn
from rmlib.alignment.policies import Policy

PAIRS = 400


def alternate(n_steps: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each round and trainer: seconds a step, tokens a second, last mean loss."""
    torch.set_num_threads(1)
    rows = justifier.examples(sources.load("simulated").select(range(PAIRS)), both_orders=True).rows
    found = []
    for number in range(rounds):
        for trainer in list(TRAINERS)[:: 1 if number % 2 else -1]:
            settings = FineTuning(n_steps, trainer=trainer)
            outcome = TRAINERS[trainer](Policy.create("embedded"), drawn(rows, settings), settings, False)
            row = {"round": number, "trainer": trainer, "seconds a step": outcome["seconds"] / n_steps}
            row |= {"tokens a second": outcome["n_tokens"] / outcome["seconds"], "loss": outcome["curve"][-1]["loss"]}
            found.append(row)
            print(row, flush=True)
    return found


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of each round (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    options = parser.parse_args()
    measured = measure(alternate, options.steps, options.rounds)
    medians = {
        trainer: statistics.median(row["seconds a step"] for row in measured.result if row["trainer"] == trainer)
        for trainer in TRAINERS
    }
    ratio = medians["trl"] / medians["own"]
    print(f"median seconds a step: {medians}; TRL takes {ratio:.1f} times as long")
    asked = {"steps": options.steps, "rounds": options.rounds, "pairs": PAIRS, "settings": FineTuning(options.steps)}
    outcome = {"rows": measured.result, "seconds a step": medians, "ratio": ratio}
    record("fine_tuning", asked | {"threads": 1}, outcome, measured.seconds)


if __name__ == "__main__":
    main()
