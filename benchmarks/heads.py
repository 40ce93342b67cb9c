"""Time of a stack of heads trained together, beside the same code with one head at a time, and their largest distance.

    python -m benchmarks.heads

The single heads are a subset, spread over the stack; what the whole stack would take one at a time is their mean time
multiplied by its size. Stack and single heads alternate in one run, on one thread and then on two.
"""

import argparse
import time
from collections import Counter
from typing import Any

import pandas as pd
import torch

from benchmarks.measure import measure, record
from rmlib.losses import PAIR_LOSSES
from rmlib.training.head_stacks import Compared, Fitted, Heads, Labels, PreferenceLoss, descend
from rmlib.training.settings import TrainSettings

HIDDEN, N_PAIRS, N_STEPS = 384, 1_000, 500
LIMITS = {"seconds": 30.0, "ratio": 20.0}


class Problem:
    """Pairs whose preference a hidden direction decides, with noise; heads of three losses, five rates, two decays."""

    def __init__(self, n_heads: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        texts = torch.randn(2, N_PAIRS, HIDDEN, generator=generator) / HIDDEN**0.5
        scores = texts @ torch.randn(HIDDEN, generator=generator) + torch.randn(2, N_PAIRS, generator=generator)
        first = (scores[0] > scores[1])[:, None]
        self.pairs = Compared(torch.where(first, texts[0], texts[1]), torch.where(first, texts[1], texts[0]))
        self.strength = torch.randint(1, 4, (N_PAIRS,), generator=generator).float()
        self.start = Heads.draw(HIDDEN, 1, range(n_heads))
        self.loss = sorted(name for name, _ in zip(list(PAIR_LOSSES) * n_heads, range(n_heads), strict=False))
        index = torch.arange(n_heads)
        self.rate = torch.logspace(-4, -2, 5)[index % 5]
        self.decay = torch.tensor([0.0, 0.1])[index // 5 % 2]
        self.settings = TrainSettings(max_steps=N_STEPS, warmup_steps=10, trainable="head")

    def fit(self, heads: slice) -> Fitted:
        """Some of the heads, trained together."""
        labels = [Labels(name, count, self.strength) for name, count in Counter(self.loss[heads]).items()]
        objective = PreferenceLoss(self.pairs, labels)
        return descend(self.start[heads], objective, self.rate[heads], self.decay[heads], self.settings)


def compare(n_threads: int, n_heads: int, n_single: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    """Of each round: seconds of the stack and of the single heads, and the largest difference of a weight."""
    torch.set_num_threads(n_threads)
    problem, rows = Problem(n_heads, seed), []
    singles = [slice(at, at + 1) for at in range(0, n_heads, -(-n_heads // n_single))]
    problem.fit(singles[0])  # loads what the first call loads
    for _ in range(rounds):
        start = time.perf_counter()
        together = problem.fit(slice(None))
        between = time.perf_counter()
        alone = [problem.fit(single) for single in singles]
        one_by_one = (time.perf_counter() - between) * n_heads / len(singles)
        distances = [
            float((together.heads.weight[single] - one.heads.weight).abs().max())
            for single, one in zip(singles, alone, strict=True)
        ]
        stack = between - start
        row = {"threads": n_threads, "heads": n_heads, "measured alone": len(singles), "stack s": stack}
        rows.append(
            row | {"one by one s": one_by_one, "ratio": one_by_one / stack, "largest difference": max(distances)}
        )
    return rows


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=500, help="in the stack (default: 500)")
    parser.add_argument("--single", type=int, default=10, help="trained alone as well (default: 10)")
    parser.add_argument("--rounds", type=int, default=2, help="of both, alternating (default: 2)")
    options = parser.parse_args()
    asked = {"heads": options.heads, "single": options.single, "rounds": options.rounds, "seed": 0}
    asked |= {"hidden": HIDDEN, "pairs": N_PAIRS, "steps": N_STEPS, "limits": LIMITS}
    measured = [
        measure(compare, threads, options.heads, options.single, options.rounds, asked["seed"]) for threads in (1, 2)
    ]
    rows = [row for one in measured for row in one.result]
    print(pd.DataFrame(rows).round({"stack s": 2, "one by one s": 1, "ratio": 1}).to_string(index=False))
    print(f"limits: {LIMITS['seconds']:g} s for the stack, a ratio of {LIMITS['ratio']:g}")
    outcome = {"rounds": rows, "peak_mb": {str(n): one.peak_mb for n, one in zip((1, 2), measured, strict=True)}}
    record("heads", asked, outcome, sum(one.seconds for one in measured))


if __name__ == "__main__":
    main()
