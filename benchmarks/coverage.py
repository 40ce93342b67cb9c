"""How often intervals of a difference hold the truth, and how wide they are, with few seeds: simulated studies.

python -m benchmarks.coverage

In a study two models that differ in nothing but luck answer the same prompts, each trained with a few seeds: a prompt
is easy or hard for all, for a model, and for one trained model; a seed is better or worse on all prompts. Four answers
to how far another study would differ are compared: the law of `statistics.crossed_difference`; the percentile bootstrap
over prompts and seeds; a t test over the seeds' means alone; and one over the prompts' means alone.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from benchmarks.measure import record
from rmlib.statistics import bootstrap_interval, crossed_difference

SEEDS = (2, 3, 5)
SPREADS = (0.0, 0.07, 0.15)  # of seeds, in units of skill
MEAN, OF_PROMPTS, OF_MODELS, OF_RUNS = 0.8, 1.2, 0.5, 0.5  # of skill: the mean, and the spreads by what it depends on
N_PROMPTS, STUDIES, DRAWS = 400, 1000, 400
METHODS = ("prompts and seeds, by squares", "bootstrap of prompts and seeds", "t over seeds", "t over prompts")


def study(rng: np.random.Generator, n_seeds: int, spread: float) -> np.ndarray:
    """Differences in being right, `[seed, prompt]`, of two models of equal skill."""
    skill = rng.normal(MEAN, OF_PROMPTS, N_PROMPTS) + rng.normal(0, OF_MODELS, (2, 1, N_PROMPTS))
    skill = skill + rng.normal(0, OF_RUNS, (2, n_seeds, N_PROMPTS)) + rng.normal(0, spread, (2, n_seeds, 1))
    right = (skill > 0).astype(float)
    return right[0] - right[1]


def points(spread: float) -> float:
    """The standard deviation of seeds in points of accuracy."""
    return float(100 * spread * stats.norm.pdf(MEAN, scale=np.sqrt(OF_PROMPTS**2 + OF_MODELS**2 + OF_RUNS**2)))


def bounds(difference: np.ndarray, seed: int) -> Mapping[str, tuple[float, float]]:
    """The 95 % interval of each method."""
    crossed = crossed_difference(difference).interval()
    drawn = bootstrap_interval(difference, seed=seed, draws=DRAWS)
    found = {METHODS[0]: (crossed.low, crossed.high), METHODS[1]: (drawn.low, drawn.high)}
    for name, means in ((METHODS[2], difference.mean(axis=1)), (METHODS[3], difference.mean(axis=0))):
        reach = stats.t.isf(0.025, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
        found[name] = (means.mean() - reach, means.mean() + reach)
    return found


def cell(n_seeds: int, spread: float) -> list[dict[str, Any]]:
    """Of each method: the share of studies whose interval holds 0, which is the truth, and the median width."""
    rng, found = np.random.default_rng([n_seeds, round(1000 * spread)]), []
    for number in tqdm(range(STUDIES), desc=f"{n_seeds} seeds, spread {spread}", leave=False):
        found.append(bounds(study(rng, n_seeds, spread), seed=number))
    rows = []
    for method in METHODS:
        low, high = np.array([each[method] for each in found]).T
        held = int(((low <= 0) & (high >= 0)).sum())
        rows.append({"method": method, "held": held / STUDIES, "width": float(np.median(high - low))})
    return rows


def main() -> None:
    """Simulate every number of seeds with every spread, and record what held."""
    start = time.perf_counter()
    rows = [
        {"seeds": n_seeds, "sd of seeds, points": round(points(spread), 2), **row}
        for n_seeds in SEEDS
        for spread in SPREADS
        for row in cell(n_seeds, spread)
    ]
    asked = {"prompts": N_PROMPTS, "studies": STUDIES, "draws": DRAWS, "simulated": True}
    record("coverage", asked, {"cells": rows}, time.perf_counter() - start)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
