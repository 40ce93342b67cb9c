"""What a test set of a given size could have shown: the power of the exact paired comparison."""

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from rmlib.statistics.arrays import both_correct, group_codes
from rmlib.statistics.paired import discordance


def mcnemar_power(difference: float, *, n: int, discordance: float, alpha: float = 0.05) -> float:
    """Probability, 0..1, that the exact McNemar test on n items finds a true difference in accuracy at level alpha.

    Args:
        difference: accuracy of a minus accuracy of b, -1..1.
        n: items that both meet.
        discordance: share of items that only one of them gets right, 0..1.
    Raises:
        ValueError: n below 1, a discordance outside 0..1, a difference greater than the discordance.

    Exact: the number of items that differ is binomial, and among these so is the number that only a gets right.
    """
    if n < 1 or not 0 <= discordance <= 1:
        raise ValueError(f"n must be at least 1 and discordance in 0..1, got n={n}, discordance={discordance}")
    if abs(difference) > discordance:
        raise ValueError(f"a difference of {difference} needs a discordance as great, got {discordance}")
    if discordance == 0:
        return 0.0
    differing = np.arange(n + 1)
    for_a = min(1.0, (1 + difference / discordance) / 2)
    found = _share_rejected(differing, for_a, alpha)
    return float(stats.binom.pmf(differing, n, discordance) @ found)


def smallest_difference(n: int, discordance: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference in accuracy, 0..1, that the exact McNemar test on n items finds with this power.

    NaN where even a difference as great as the discordance, all of it one way, would be found less often. Raises
    ValueError as `mcnemar_power`, and for a power that is not between alpha and 1.
    """
    if not alpha < power < 1:
        raise ValueError(f"power must lie between alpha={alpha} and 1, got {power}")
    if mcnemar_power(discordance, n=n, discordance=discordance, alpha=alpha) < power:
        return math.nan
    lacking = lambda size: mcnemar_power(size, n=n, discordance=discordance, alpha=alpha) - power  # noqa: E731
    return float(brentq(lacking, 0, discordance, xtol=1e-6))


def detectable_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float:
    """The `smallest_difference` at the size and `discordance` of a comparison that was made.

    With `groups`, n is the number of independent items whose difference would have the same variance. NaN and errors
    as `smallest_difference` and `paired_difference`; NaN too where no item differs.
    """
    apart = discordance(correct_a, correct_b)
    if apart == 0:
        return math.nan
    a, b = both_correct(correct_a, correct_b)
    net = (a - b).mean(axis=0)
    if groups is not None:
        net = np.bincount(group_codes(groups, a.shape[1])[0], weights=net)
    n = a.shape[1] ** 2 * apart / max((net**2).sum(), apart)
    return smallest_difference(max(1, round(n)), apart, power=power, alpha=alpha)


def _share_rejected(differing: Float[np.ndarray, "count"], for_a: float, alpha: float) -> Float[np.ndarray, "count"]:
    """How often the two-sided binomial test of 1/2 rejects, for each number of items that differ."""
    largest = stats.binom.ppf(alpha / 2, differing, 0.5)
    largest -= stats.binom.cdf(largest, differing, 0.5) > alpha / 2  # the last count whose tail is within alpha / 2
    return stats.binom.cdf(largest, differing, for_a) + stats.binom.sf(differing - largest - 1, differing, for_a)
