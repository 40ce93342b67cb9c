"""Two models on the same items: difference, exact test and its power, effect size, agreement."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from rmlib.statistics.intervals import (
    Interval,
    Resamples,
    bootstrap_interval,
    both_correct,
    finite,
    group_codes,
    percentile_interval,
    seed_by_item,
)

ALPHA, POWER = 0.05, 0.8  # of `detectable_difference`


@dataclass(frozen=True)
class PairedDifference:
    """How much more often a is right than b on the same items, and the p-value of no difference (`mcnemar`)."""

    difference: Interval
    p_value: float

    def __str__(self) -> str:
        low, high = self.difference.low, self.difference.high
        return f"{self.difference.estimate:+.3f} [{low:+.3f}, {high:+.3f}], n={self.difference.n}, p={self.p_value:.3g}"


def paired_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, *, seed: int, groups: ArrayLike | None = None, draws: int = 2000
) -> PairedDifference:
    """Accuracy of a minus accuracy of b on the same items (and seeds), with a paired bootstrap interval and `mcnemar`.

    Args:
        correct_a, correct_b: 0 or 1 (or bool), `[item]` or `[seed, item]`, row i of both from the same seed.
    Raises:
        ValueError: different shapes, a value other than 0 and 1.

    The interval redraws items and seeds. The p-value redraws neither: it asks whether *these* trained models differ.
    """
    a, b = both_correct(correct_a, correct_b)
    difference = np.squeeze(a - b, axis=0) if len(a) == 1 else a - b
    return PairedDifference(
        bootstrap_interval(difference, seed=seed, groups=groups, draws=draws),
        mcnemar(correct_a, correct_b, groups=groups),
    )


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike, *, groups: ArrayLike | None = None) -> float:
    """Exact two-sided p-value of "a and b are right equally often on these items" (McNemar, 1947).

    For `[item]` this is the binomial test on the items that only one of them gets right. For `[seed, item]` an item
    counts by how many more seeds get it right under a than under b, and the exact distribution under random signs of
    these counts is used; one seed gives McNemar's test. The items of one of the `groups` take one sign together.
    Raises ValueError as `paired_difference`.
    """
    a, b = both_correct(correct_a, correct_b)
    net = (a - b).sum(axis=0)
    if groups is not None:
        net = np.bincount(group_codes(groups, len(net))[0], weights=net)
    net = net.round().astype(int)
    distribution = np.ones(1)  # of the sum of +-|net|, on the integers from -total to total
    for size, count in zip(*np.unique(np.abs(net[net != 0]), return_counts=True), strict=True):
        step = np.zeros(2 * size * count + 1)
        step[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.convolve(distribution, step)
    total = np.abs(net).sum()
    at_least_as_far = np.abs(np.arange(-total, total + 1)) >= abs(net.sum())
    return float(min(1.0, distribution[at_least_as_far].sum()))


def holm(p_values: ArrayLike) -> Float[np.ndarray, "test"]:
    """P-values adjusted for their number by the step-down method (Holm, 1979), in the order given.

    Raises ValueError for none, or one outside 0..1.
    """
    p = finite(p_values, "p_values")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values must lie in 0..1, got {p.min()}..{p.max()}")
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def discordance(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Share of items, 0..1, that one of the two gets right and the other wrong.

    For `[seed, item]` the mean square of an item's difference over the seeds: the share at which a comparison of one
    seed would have as much variance. Raises ValueError as `paired_difference`.
    """
    a, b = both_correct(correct_a, correct_b)
    return float(np.mean((a - b).mean(axis=0) ** 2))


def discordant_odds_ratio(correct_a: ArrayLike, correct_b: ArrayLike) -> Interval:
    """Odds that a, not b, is the one that is right where they differ; exact interval (Clopper & Pearson, 1934).

    The effect that McNemar's test is about, free of how many items both find easy: 1 is no difference, 2 means that a
    alone is right twice as often as b alone. (Cohen's h, of two independent shares, would ignore the pairing.) For
    `[seed, item]` an item counts for the one that is right under more seeds. `n` is the number of items that differ;
    a bound is infinite where one side has none, and all are NaN where no item differs. Errors as `paired_difference`.
    """
    a, b = both_correct(correct_a, correct_b)
    net = (a - b).sum(axis=0)
    for_a, n = int((net > 0).sum()), int((net != 0).sum())
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    bounds = stats.binomtest(for_a, n).proportion_ci(0.95, method="exact")
    estimate, low, high = (share / (1 - share) if share < 1 else np.inf for share in (for_a / n, *bounds))
    return Interval(float(estimate), float(low), float(high), n)


def mcnemar_power(difference: float, *, n: int, discordance: float) -> float:
    """Probability, 0..1, that the exact McNemar test on n items finds this difference in accuracy at the level ALPHA.

    The number of items that differ is binomial, and among these so is the number that only a gets right.
    """
    differing, for_a = np.arange(n + 1), min(1.0, (1 + difference / discordance) / 2)
    largest = stats.binom.ppf(ALPHA / 2, differing, 0.5)
    largest -= stats.binom.cdf(largest, differing, 0.5) > ALPHA / 2  # the last count whose tail is within ALPHA / 2
    found = stats.binom.cdf(largest, differing, for_a) + stats.binom.sf(differing - largest - 1, differing, for_a)
    return float(stats.binom.pmf(differing, n, discordance) @ found)


def smallest_difference(n: int, discordance: float) -> float:
    """The smallest difference in accuracy, 0..1, that the exact McNemar test on n items finds with probability POWER.

    NaN where even a difference as great as the discordance, all of it one way, would be found less often.
    """
    lacking = lambda size: mcnemar_power(size, n=n, discordance=discordance) - POWER  # noqa: E731
    return float(brentq(lacking, 0, discordance, xtol=1e-6)) if lacking(discordance) >= 0 else math.nan


def detectable_difference(correct_a: ArrayLike, correct_b: ArrayLike, *, groups: ArrayLike | None = None) -> float:
    """The `smallest_difference` at the size and `discordance` of a comparison that was made.

    With `groups`, n is the number of independent items whose difference would have the same variance. NaN too where no
    item differs. Errors as `paired_difference`.
    """
    apart = discordance(correct_a, correct_b)
    if apart == 0:
        return math.nan
    a, b = both_correct(correct_a, correct_b)
    net = (a - b).mean(axis=0)
    if groups is not None:
        net = np.bincount(group_codes(groups, a.shape[1])[0], weights=net)
    n = a.shape[1] ** 2 * apart / max((net**2).sum(), apart)
    return smallest_difference(max(1, round(n)), apart)


@dataclass(frozen=True)
class Agreement:
    """How far two models order pairs alike: the share of pairs, and Cohen's kappa of being right."""

    share: Interval
    kappa: Interval


def agreement(
    margin_a: ArrayLike, margin_b: ArrayLike, *, seed: int, groups: ArrayLike | None = None, draws: int = 1000
) -> Agreement:
    """Share of pairs that two models order alike, and kappa: what remains beyond chance (Cohen, 1960).

    Two models that are often right agree often by that alone; kappa takes it off. A tie orders nothing and is wrong.
    Shapes and errors as in `paired_difference`; kappa is NaN where both are right, or both wrong, on every pair, and
    draws in which that happens are left out of its interval.
    """
    rows = [seed_by_item(margin, name) for margin, name in ((margin_a, "margin_a"), (margin_b, "margin_b"))]
    a, b = both_correct(*(np.squeeze(row > 0, axis=0) if len(row) == 1 else row > 0 for row in rows))
    alike = (np.sign(rows[0]) == np.sign(rows[1])).astype(float)
    drawn = Resamples.draw(alike, seed=seed, groups=groups, draws=draws)
    # One seed's model has one accuracy, so what chance gives is worked out seed by seed and then averaged.
    right = [table @ drawn.items.T for table in (a, b, (a == b).astype(float))]
    observed = [np.einsum("ds,sd->d", drawn.seeds, part) for part in (right[2], _chance(*right[:2]))]
    shares = (a == b).mean(), _chance(a.mean(axis=1), b.mean(axis=1)).mean()
    kappas = _kappa(*observed)
    n = a.shape[1]
    return Agreement(
        percentile_interval(float(alike.mean()), drawn.means(alike), n),
        percentile_interval(float(_kappa(*shares)), kappas[np.isfinite(kappas)], n)
        if np.isfinite(_kappa(*shares))
        else Interval(np.nan, np.nan, np.nan, n),
    )


def _chance(accuracy_a: np.ndarray, accuracy_b: np.ndarray) -> np.ndarray:
    """How often two models with these accuracies are both right or both wrong by chance."""
    return accuracy_a * accuracy_b + (1 - accuracy_a) * (1 - accuracy_b)


def _kappa(observed: np.ndarray, chance: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1, (observed - chance) / (1 - np.asarray(chance)), np.nan)
