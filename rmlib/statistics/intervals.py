"""Estimates with their intervals: Wilson, Fisher, and the bootstrap over items (and seeds, and groups of items).

All that is redrawn anywhere is redrawn by `redrawn`: by `Resamples` for means of tables, by `redrawn_sums` for what is
made of sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

_COUNTS_AT_ONCE = 2**22  # 32 MB of doubles, however many items there are


def finite(values: ArrayLike, name: str) -> Float[np.ndarray, "..."]:
    """An array of floats; ValueError where it is empty or holds NaN or infinity."""
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError(f"{name} is empty: there is nothing to summarise")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"{name} holds {len(bad)} values that are not finite, the first at {bad[0].tolist()}")
    return array


def seed_by_item(values: ArrayLike, name: str) -> Float[np.ndarray, "seed item"]:
    """`[item]` as one row, `[seed, item]` as it is; ValueError for other shapes and a 2-D array of one seed."""
    array = finite(values, name)
    if array.ndim == 1:
        return array[None]
    if array.ndim != 2:
        raise ValueError(f"{name} must be [item] or [seed, item], got shape {list(array.shape)}")
    if len(array) < 2:
        raise ValueError(f"{name} has one seed: give at least two, or {name}[0] for an interval over items alone")
    return array


def zero_or_one(correct: ArrayLike, name: str = "correct") -> Float[np.ndarray, "seed item"]:
    """As `seed_by_item`; ValueError for a value other than 0 and 1 too."""
    array = seed_by_item(correct, name)
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must hold 0 and 1 alone; for margins pass margin > 0")
    return array


def both_correct(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both by `zero_or_one`; ValueError where their shapes differ."""
    a, b = zero_or_one(correct_a, "correct_a"), zero_or_one(correct_b, "correct_b")
    if a.shape != b.shape:
        raise ValueError(f"correct_a has shape {list(a.shape)}, correct_b {list(b.shape)}: give the same items of both")
    return a, b


def group_codes(groups: ArrayLike, n_items: int) -> tuple[np.ndarray, int]:
    """Groups as codes 0, 1, ... and their number; ValueError where they are of other items, or all one group."""
    labels = np.asarray(groups)
    if labels.shape != (n_items,):
        raise ValueError(f"groups have shape {list(labels.shape)} for {n_items} items: give one label an item")
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError("all items are of one group: an interval over groups needs at least two")
    return codes, len(names)


def matched_seeds(
    a: Float[np.ndarray, "seed_of_a item"], b: Float[np.ndarray, "seed_of_b item"]
) -> tuple[Float[np.ndarray, "seed item"], Float[np.ndarray, "seed item"]]:
    """The seeds that both have; a single row (a ruler, one seed) stands against every seed of the other."""
    shared = max(len(a), len(b)) if 1 in (len(a), len(b)) else min(len(a), len(b))
    first, second = (np.repeat(table, shared, axis=0) if len(table) == 1 else table[:shared] for table in (a, b))
    return first, second


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; `n` is the number of items behind it."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}], n={self.n}"


def accuracy(margin: ArrayLike) -> float:
    """Share of pairs, 0..1, whose margin is above 0: a tie is wrong. Raises ValueError for no pair or a NaN."""
    return float(np.mean(finite(margin, "margin") > 0))


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Share of successes with Wilson's score interval, which keeps its width where all or none succeed (Wilson, 1927).

    Raises ValueError where n is 0 or successes lie outside 0..n.
    """
    bounds = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high), n)


def bootstrap_interval(values: ArrayLike, *, seed: int, groups: ArrayLike | None = None, draws: int = 2000) -> Interval:
    """Percentile bootstrap interval of a mean (Efron & Tibshirani, 1993, chapter 13).

    Of `[seed, item]` seeds and items are both redrawn, each draw meeting all drawn seeds with the same drawn items. Few
    seeds make it a little narrow: k seeds show (k - 1) / k of their variance.
    """
    table = seed_by_item(values, "values")
    drawn = Resamples.draw(table, seed=seed, groups=groups, draws=draws).means(table)
    return percentile_interval(float(table.mean()), drawn, table.shape[1])


def percentile_interval(estimate: float, drawn: Float[np.ndarray, "draw"], n: int, *, level: float = 0.95) -> Interval:
    """An estimate with the percentiles of its bootstrap draws; a draw may be infinite, never NaN."""
    bounds = (1 - level) / 2, (1 + level) / 2
    # Between two infinite draws there is nothing to interpolate.
    low, high = np.quantile(drawn, bounds, method="linear" if np.isfinite(drawn).all() else "nearest")
    return Interval(estimate, float(low), float(high), n)


@dataclass(frozen=True)
class Resamples:
    """Bootstrap resamples as weights that sum to 1 in each draw, for statistics that are made of weighted means."""

    seeds: Float[np.ndarray, "draw seed"]
    items: Float[np.ndarray, "draw item"]

    @classmethod
    def draw(
        cls, table: Float[np.ndarray, "*any seed item"], *, seed: int, groups: ArrayLike | None = None, draws: int
    ) -> Self:
        """Redraw the seeds and the items of a table (or the groups of items), each with replacement."""
        n_seeds, n_items = table.shape[-2:]
        codes, n_groups = (np.arange(n_items), n_items) if groups is None else group_codes(groups, n_items)
        seeds = np.concatenate(list(redrawn(n_seeds, seed=[seed, 1], draws=draws)))
        return cls(seeds / n_seeds, _weights(codes.tobytes(), n_groups, draws, seed))

    def means(self, table: Float[np.ndarray, "seed item"]) -> Float[np.ndarray, "draw"]:
        """The mean of a table in each draw."""
        return np.einsum("ds,sd->d", self.seeds, table @ self.items.T)


# A table of many comparisons on the same items redraws them alike, and this is its slow part. As many as there are
# strata of a property, which are looked at in turn for every arm.
@lru_cache(maxsize=8)
def _weights(codes: bytes, n_groups: int, draws: int, seed: int) -> Float[np.ndarray, "draw item"]:
    """Weight of each item where groups are drawn with replacement, as many as there are, and weights sum to 1."""
    counts = np.concatenate(list(redrawn(n_groups, seed=seed, draws=draws)))
    items = counts[:, np.frombuffer(codes, dtype=np.int64)]
    weights = items / items.sum(axis=1, keepdims=True)
    weights.flags.writeable = False
    return weights


def redrawn(n: int, *, seed: int | Sequence[int], draws: int) -> Iterator[Float[np.ndarray, "draw item"]]:
    """How often each of n items comes in each draw of n with replacement, a block of draws at a time."""
    rng, block = np.random.default_rng(seed), max(1, _COUNTS_AT_ONCE // n)
    for start in range(0, draws, block):
        size = min(block, draws - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float)


def redrawn_sums(
    terms: Float[np.ndarray, "item column"], *, seed: int | Sequence[int], draws: int, groups: ArrayLike | None = None
) -> Float[np.ndarray, "draw column"]:
    """The sum of each column: in row 0 over the items as they are, then over items drawn with replacement."""
    codes = np.arange(len(terms)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    blocks = redrawn(int(codes.max()) + 1, seed=seed, draws=draws)
    return np.vstack([np.ones((1, len(terms))) @ terms, *(counts[:, codes] @ terms for counts in blocks)])


def correlation_interval(x: ArrayLike, y: ArrayLike) -> Interval:
    """Pearson's r with the interval of Fisher's z transformation. Raises ValueError as scipy.stats.pearsonr."""
    result = stats.pearsonr(finite(x, "x"), finite(y, "y"))
    bounds = result.confidence_interval(0.95)
    return Interval(float(result.statistic), float(bounds.low), float(bounds.high), np.size(x))
