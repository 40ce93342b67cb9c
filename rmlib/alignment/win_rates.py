"""Is an aligned policy better than the one it started as? Win rates, at equal length too, by any scorer or judge."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import ArrayLike

from rmlib import statistics
from rmlib.benchmarks.judges import Judge
from rmlib.benchmarks.judging import ask, both_orders
from rmlib.models import Prompt
from rmlib.statistics import Interval

logger = logging.getLogger(__name__)
BOOTSTRAP_SEED = 0


class WinRate(NamedTuple):
    """How often one answer beats another to the same prompt, and how long both are, which belongs beside it.

    Attributes:
        rate: share of wins, ties half.
        equal_length: the same as a logistic regression predicts for answers of equal length; None where all are, or
            where the few answers do not determine it.
        ties: share of ties, identical answers among them.
        length, length_before: mean characters.
    """

    rate: Interval
    equal_length: Interval | None
    ties: float
    length: float
    length_before: float

    def row(self) -> dict[str, Any]:
        """As a record or a table holds it."""
        row: dict[str, Any] = {f"win rate{end}": getattr(self.rate, name) for end, name in _COLUMNS}
        if self.equal_length is not None:
            row |= {f"at equal length{end}": getattr(self.equal_length, name) for end, name in _COLUMNS}
        row |= {"ties": self.ties, "length": self.length, "length before": self.length_before, "n": self.rate.n}
        return row


_COLUMNS = (("", "estimate"), (" low", "low"), (" high", "high"))


def win_rate(
    credit: ArrayLike, length: ArrayLike, length_before: ArrayLike, groups: ArrayLike | None = None
) -> WinRate:
    """Win rates of credits `[item]`: 1 for a win, 0 for a loss, 1/2 for a tie; lengths in characters.

    `groups`, a label an item, are redrawn together in the intervals: answers to one prompt under several seeds. At
    equal length a tie counts as half a win and half a loss (`statistics.length_controlled_accuracy`, after AlpacaEval
    2, arXiv 2404.04475). Raises ValueError for other credits, and lengths of other items.
    """
    given, new, old = (np.asarray(values, dtype=float) for values in (credit, length, length_before))
    if not np.isin(given, (0, 0.5, 1)).all() or given.ndim != 1 or not given.size:
        raise ValueError("credits must be one or more of 0, 1/2 and 1, one an item")
    if new.shape != given.shape or old.shape != given.shape:
        raise ValueError(f"{len(given)} credits, but lengths of shape {new.shape} and {old.shape}")
    labels = np.arange(len(given)) if groups is None else np.asarray(groups)
    rate = statistics.bootstrap_interval(given, seed=BOOTSTRAP_SEED, groups=labels)
    equal = _at_equal_length(given, new - old, labels) if (new != old).any() else None
    return WinRate(rate, equal, float((given == 0.5).mean()), float(new.mean()), float(old.mean()))


def _at_equal_length(
    credit: Float[np.ndarray, "item"], difference: Float[np.ndarray, "item"], groups: np.ndarray
) -> Interval | None:
    halves = np.stack([credit > 0.25, credit > 0.75], axis=1).astype(int).ravel()  # a tie: once won, once lost
    twice, labels = np.repeat(difference, 2), np.repeat(groups, 2)
    try:
        found = statistics.length_controlled_accuracy(halves, twice, seed=BOOTSTRAP_SEED, groups=labels)
    except RuntimeError as error:  # a handful of answers whose lengths alone tell who won
        logger.warning("no win rate at equal length: %s", error)
        return None
    return Interval(found.estimate, found.low, found.high, len(credit))


def credits(new: ArrayLike, before: ArrayLike) -> Float[np.ndarray, "item"]:
    """1 where the new score is higher, 0 where it is lower, 1/2 where they are equal. Raises ValueError for a NaN."""
    one, other = np.asarray(new, dtype=float), np.asarray(before, dtype=float)
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError(f"scores of shape {one.shape} and {other.shape} must be the same items', and finite numbers")
    return 0.5 + 0.5 * np.sign(one - other)


class Judged(NamedTuple):
    """Credits by a judge that saw both orders, and what it met with how often."""

    credits: Float[np.ndarray, "item"]
    problems: dict[str, int]


def judge_credits(
    judge: Judge, prompts: Sequence[Prompt], new: Sequence[str], before: Sequence[str], *, workers: int = 1,
    progress: bool = True,
) -> Judged:  # fmt: skip
    """Both orders of each two answers are judged: a win in both is 1, in one 1/2; a tie or no verdict counts half.

    Where one order is won and the other undecided, the answer that won gets the point. Problems are counted by kind.
    """
    rows = [
        {"item_id": str(index), "prompt": [dict(message) for message in prompt], "candidates": list(two)}
        for index, (prompt, *two) in enumerate(zip(prompts, new, before, strict=True))
    ]
    orders = both_orders(Dataset.from_list(rows), partial(ask, judge, workers=workers, progress=progress))
    points = sum(np.sign(0.5 - orders[name].fillna(0.5).to_numpy()) for name in ("first", "second"))
    problems = {str(kind): int(count) for kind, count in orders["problem"].value_counts().items()}
    return Judged(0.5 + 0.5 * np.sign(points), problems)
