"""A difference of two models, prompts and seeds both random: interval, p and what could have been seen, by one law.

Percentiles of a bootstrap of three seeds hold the true difference too rarely (in simulation .86 instead of .95 where
seeds differ as much as prompts make uncertain). Here the variance of each way of drawing is estimated by itself, and
each is multiplied by the quantile that its number of draws calls for (Howe, 1974): an interval excludes 0 at 95 %
exactly where p is below .05.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from rmlib.statistics.intervals import Interval, both_correct, group_codes, matched_seeds, seed_by_item

_SMALLEST_P = 1e-100  # below it, 0: the square of a quantile has to stay a number


@dataclass(frozen=True)
class CrossedDifference:
    """A mean difference, and what other prompts and other seeds would make of it.

    Attributes:
        estimate, n, n_seeds: the mean, and over how many items and seeds.
        of_seeds, of_items: its variance by the draw of seeds, and that which the draw of items adds.
        units, apart: how many items (or groups) were drawn, and on how many of them the two differ at all.
    """

    estimate: float
    of_seeds: float
    of_items: float
    n_seeds: int
    units: int
    apart: int
    n: int

    def __str__(self) -> str:
        found = self.interval()
        return f"{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}], n={self.n}, p={self.p_value:.3g}"

    def half_width(self, level: float = 0.95) -> float:
        """How far the interval reaches to either side."""
        reach = float(np.sqrt(self._squared((1 - level) / 2)))
        return reach if 1 - level > self._least_p else max(reach, abs(self.estimate))

    def interval(self, level: float = 0.95) -> Interval:
        """Where the difference lies if prompts and seeds are drawn anew."""
        reach = self.half_width(level)
        return Interval(self.estimate, self.estimate - reach, self.estimate + reach, self.n)

    @property
    def p_value(self) -> float:
        """Two-sided: how often prompts and seeds between which nothing differs would show as much."""
        if self.estimate == 0:
            return 1.0
        excess = lambda log_p: self._squared(np.exp(log_p) / 2) - self.estimate**2  # noqa: E731
        lowest = float(np.log(_SMALLEST_P))
        p = float(np.exp(brentq(excess, lowest, 0.0, xtol=1e-12))) if excess(lowest) > 0 else 0.0
        return max(p, self._least_p)

    @property
    def _least_p(self) -> float:
        """What the signs of the items that differ allow: three that go one way are 2 of the 8 ways to give signs."""
        return min(1.0, 2.0 ** (1 - self.apart))

    def detectable(self, *, level: float = 0.95, power: float = 0.8) -> float:
        """The smallest difference that a comparison like this one finds, at this level, with this probability.

        NaN where the two differ on no item.
        """
        if not self.apart:
            return float("nan")
        return float(np.sqrt(self._squared((1 - level) / 2, 1 - power)))

    def _squared(self, *tails: float) -> float:
        """The square of the deviation that leaves these tails beyond it."""
        by_seeds = sum(stats.t.isf(tail, self.n_seeds - 1) for tail in tails) if self.n_seeds > 1 else 0.0
        by_items = sum(stats.t.isf(tail, self.units - 1) for tail in tails)
        return float(by_seeds**2 * self.of_seeds + by_items**2 * self.of_items)


def paired_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, *, groups: ArrayLike | None = None
) -> CrossedDifference:
    """Accuracy of a minus accuracy of b on the same items (and seeds), 0 or 1 (or bool) each: `crossed_difference`.

    Raises ValueError for different shapes, and a value other than 0 and 1.
    """
    a, b = both_correct(correct_a, correct_b)
    difference = a - b
    return crossed_difference(difference if len(difference) > 1 else difference[0], groups=groups)


def crossed_difference(
    difference: ArrayLike, *, weights: ArrayLike | None = None, strata: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> CrossedDifference:  # fmt: skip
    """The mean over seeds and items of `[seed, item]` (or `[item]`: one pair of models, whose seeds are not redrawn).

    Args:
        difference: credit of one model less that of another for each item, row i of both from seed i.
        weights: `[item]`, of the mean (by default all alike); they are made to sum to 1.
        strata: `[item]`, labels of parts whose numbers of items are fixed, such as a benchmark's subsets.
        groups: `[item]`, labels of items that are drawn together (of one prompt).
    Raises ValueError for wrong shapes, values that are not finite, weights that are negative or sum to 0, and one unit.
    """
    table = seed_by_item(difference, "difference")
    n_seeds, n = table.shape
    share = np.full(n, 1.0) if weights is None else np.asarray(weights, dtype=float)
    if share.shape != (n,) or share.min() < 0 or share.sum() <= 0:
        raise ValueError(f"weights must be {n} numbers from 0, not all 0")
    share = share / share.sum()
    parts = np.zeros(n, dtype=int) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    codes, units = (np.arange(n), n) if groups is None else group_codes(groups, n)
    if units < 2:
        raise ValueError("one item, or items of one group: nothing says how far another would differ")
    sums = table @ (share[:, None] * np.eye(parts.max() + 1)[parts])  # of each stratum, [seed, stratum]
    size = np.bincount(parts, weights=share)
    centred = share * (table - (sums / np.where(size > 0, size, 1))[:, parts])
    of_units = np.stack([np.bincount(codes, weights=row, minlength=units) for row in centred])
    factors = _factors(parts, codes)
    by_items = float((factors * of_units.mean(axis=0) ** 2).sum())
    estimate = float(table.mean(axis=0) @ share)
    apart = len(np.unique(codes[(table != 0).any(axis=0) & (share > 0)]))
    if n_seeds == 1:
        return CrossedDifference(estimate, 0.0, by_items, 1, units, apart, n)
    totals = sums.sum(axis=1)
    by_both = float((factors * of_units.var(axis=0, ddof=1)).sum()) / n_seeds  # in each of the other two as well
    by_seeds = float(totals.var(ddof=1)) / n_seeds
    return CrossedDifference(estimate, by_seeds, max(by_items - by_both, 0.0), n_seeds, units, apart, n)


def crossed_scores(
    a: Float[np.ndarray, "draw seed_of_a"], b: Float[np.ndarray, "draw seed_of_b"], *, units: int, apart: int, n: int
) -> CrossedDifference:
    """The same for any score: in row 0 as it is, in the other rows with the items redrawn, alike for both.

    `units`, `apart` and `n` are those of `CrossedDifference`. Seeds that only one of the two has are left out; a single
    run stands against every run of the other.
    """
    ours, theirs = matched_seeds(a.T, b.T)
    difference = (ours - theirs).T
    n_seeds = difference.shape[1]
    estimate, by_items = float(a[0].mean() - b[0].mean()), float(difference[1:].mean(axis=1).var())
    if n_seeds == 1:
        return CrossedDifference(estimate, 0.0, by_items, 1, units, apart, n)
    alone = difference[1:] - difference[1:].mean(axis=1, keepdims=True)
    by_both = float(alone.var(axis=0).mean()) / (n_seeds - 1)
    by_seeds = float(difference[0].var(ddof=1)) / n_seeds
    return CrossedDifference(estimate, by_seeds, max(by_items - by_both, 0.0), n_seeds, units, apart, n)


def _factors(parts: np.ndarray, codes: np.ndarray) -> Float[np.ndarray, "unit"]:
    """k / (k - 1) for the k units of a stratum: a mean of few units varies more than their deviations from it show.

    A unit across strata counts in the first; a stratum of one unit shows nothing of its own variance.
    """
    _, first = np.unique(codes, return_index=True)
    sizes = np.bincount(parts[first])[parts[first]]
    return np.where(sizes > 1, sizes / np.maximum(sizes - 1, 1), 1.0)
