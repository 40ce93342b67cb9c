"""Two models on the same items: an exact test of the trained models at hand, effect size, agreement."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from rmlib.statistics.intervals import (
    Interval,
    Resamples,
    both_correct,
    finite,
    group_codes,
    percentile_interval,
    seed_by_item,
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
