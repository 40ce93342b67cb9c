"""How far to extrapolate: a coarse and then a fine sweep of factors, and what choosing on the test would have shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from jaxtyping import Float

from rmlib import statistics

COARSE_FACTORS = tuple(np.round(np.arange(1.0, 2.01, 0.1), 2).tolist())

Sweep = list[dict[str, float]]


def rows(at: Callable[[float], dict[str, float]], factors: Iterable[float]) -> Sweep:
    """What `at` finds for each factor, one row a factor."""
    return [{"factor": float(factor), **at(factor)} for factor in factors]


def ordering_of(margin: Float[np.ndarray, "decided"]) -> dict[str, float]:
    """Accuracy of the margins of decided pairs, with their mean loss of regular BT."""
    return {"accuracy": statistics.accuracy(margin), "loss": float(np.logaddexp(0, -margin).mean())}


def around_best(at: Callable[[float], dict[str, float]]) -> Sweep:
    """The coarse sweep, then steps of 0.01 within 0.05 of its best factor, not below its first; rows by factor."""
    found = rows(at, COARSE_FACTORS)
    seen = {row["factor"] for row in found}
    fine = [round(best_factor(found) + step / 100, 2) for step in range(-5, 6)]
    fine = [factor for factor in fine if factor not in seen and factor >= COARSE_FACTORS[0]]
    return sorted(found + rows(at, fine), key=lambda row: row["factor"])


def best_factor(found: Sweep) -> float:
    """The factor of the highest accuracy, the smallest among equals: no further than the data ask for."""
    return max(found, key=lambda row: (row["accuracy"], -row["factor"]))["factor"]


def beside(chosen_on: Sweep, reported_on: Sweep) -> dict[str, float]:
    """The factor chosen on one sweep and its accuracy on another, beside that other's own best and what it adds.

    `optimism` is in points of accuracy, never negative: choosing where one reports can only flatter. ValueError where
    the second sweep lacks the chosen factor.
    """
    chosen, accuracy = best_factor(chosen_on), pd.DataFrame(reported_on).set_index("factor")["accuracy"]
    if chosen not in accuracy.index:
        raise ValueError(f"the sweep to report on lacks the chosen factor {chosen}; it has {list(accuracy.index)}")
    own = best_factor(reported_on)
    return {
        "chosen": chosen,
        "accuracy": float(accuracy[chosen]),
        "own best": own,
        "accuracy of own best": float(accuracy[own]),
        "optimism": 100 * float(accuracy[own] - accuracy[chosen]),
    }
