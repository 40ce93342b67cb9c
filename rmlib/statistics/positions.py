"""Judges that see two responses side by side: do they keep to their verdict when the two change places?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmlib.statistics.intervals import Interval, wilson_interval


@dataclass(frozen=True)
class PositionConsistency:
    """Verdicts of one judge in both orders, with Wilson intervals; the four shares sum to 1.

    Attributes:
        consistent: the same response wins in both orders.
        first, second: the response in the first (second) place wins in both orders, whichever it is.
        undecided: no winner in one order at least: a tie, an answer that could not be read, an error.
    """

    consistent: Interval
    first: Interval
    second: Interval
    undecided: Interval


def position_consistency(in_order: ArrayLike, swapped: ArrayLike, *, level: float = 0.95) -> PositionConsistency:
    """How often a judge names the same winner of two responses, shown as 1, 2 and as 2, 1.

    Args:
        in_order, swapped: `[pair]`, the winner in each of the two orders: 1 or 2, the number of the *response* (not of
            its place), 0 where there is none.
    Raises:
        ValueError: no pair, verdicts of other pairs, a value other than 0, 1, 2.

    A judge that looks at places alone has a consistent share of 0; one that tosses a coin has 1/2. Source: Zheng et al.
    (arXiv 2306.05685), who call it position bias.
    """
    a, b = np.asarray(in_order), np.asarray(swapped)
    if a.shape != b.shape or a.ndim != 1 or a.size == 0:
        raise ValueError(f"give both verdicts of the same pairs, got shapes {list(a.shape)} and {list(b.shape)}")
    if not np.isin([a, b], (0, 1, 2)).all():
        raise ValueError("a verdict is the winning response, 1 or 2, or 0 where there is none")
    decided = (a > 0) & (b > 0)
    shares = (decided & (a == b), decided & (a == 1) & (b == 2), decided & (a == 2) & (b == 1), ~decided)
    return PositionConsistency(*(wilson_interval(int(share.sum()), len(a), level=level) for share in shares))
