"""One preference of several: the three most similar, their mean, rounded (arXiv 2410.01257, section 2)."""

import itertools
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rmlib.pairs.schema import NEITHER_VALID

N_KEPT, TOLERATED_SPAN = 3, 2  # how many annotations make a label, and how far apart they may lie

Value = int | float | None


def kept_positions(values: Sequence[Value]) -> tuple[int, ...]:
    """Positions, ascending, of the three most similar values; of all valid ones where there are fewer than three.

    -100 and None are not valid. Among all choices of three: smallest range, then smallest variance, then mean nearest
    to the mean of all valid values, then the earliest positions. Sums are exact, so that no rounding error decides a
    tie. Raises ValueError for a value that is not finite.
    """
    return _kept_positions(tuple(values))


def three_most_similar(values: Sequence[Value]) -> list[Any]:
    """The values at `kept_positions`, in the order given."""
    return [values[position] for position in kept_positions(values)]


def overall_preference(values: Sequence[Value]) -> int | None:
    """Mean of the three most similar preferences, rounded (thirds alone occur, never halves).

    None where fewer than three are valid or where the three span more than 2. 0 is returned as it is: leaving it out
    is a step of its own (`annotations.preference_steps`).
    """
    return _rounded_mean(values) if len(valid_values(values)) >= N_KEPT else None


def preference_of_repeats(values: Sequence[Value]) -> int | None:
    """The preference of a pair that was labelled more than once: `overall_preference`, and the same rule for two.

    Halves, possible with two, round to even. The order of the values tells nothing, and exchanging the responses
    changes nothing but the sign: where two choices of three are equally similar and disagree, the pair is a tie.
    None where no value is valid, and where those kept span more than 2.
    """
    given = valid_values(values)
    if not given:
        return None
    found, exchanged = (_rounded_mean(_inner_first(side)) for side in (given, [-value for value in given]))
    if found is None or exchanged is None:
        return None
    return found if found == -exchanged else 0


def _inner_first(values: Sequence[Any]) -> list[Any]:
    """An order of the values that does not depend on theirs: `kept_positions` prefers the earlier of two."""
    return sorted(values, key=lambda value: (abs(value), value))


def valid_values(values: Sequence[Value]) -> list[Any]:
    """Those that are labels: neither None nor -100."""
    return [value for value in values if value is not None and value != NEITHER_VALID]


def mean(values: Sequence[Any]) -> Fraction:
    """The mean, exact."""
    return Fraction(sum(map(_exact, values)), len(values))


def _rounded_mean(values: Sequence[Value]) -> int | None:
    kept = three_most_similar(values)
    return None if max(kept) - min(kept) > TOLERATED_SPAN else round(mean(kept))


@lru_cache(maxsize=2**16)  # few different lists of votes occur, however many pairs there are
def _kept_positions(values: tuple[Value, ...]) -> tuple[int, ...]:
    valid = [position for position, value in enumerate(values) if value is not None and value != NEITHER_VALID]
    if len(valid) <= N_KEPT:
        return tuple(valid)
    exact = {position: _exact(values[position]) for position in valid}
    overall = sum(exact.values())

    def spread(positions: tuple[int, ...]) -> tuple[Any, ...]:
        chosen = [exact[position] for position in positions]
        total = sum(chosen)
        # 9 times the variance and 3 * len(valid) times the distance of the means: whole numbers stay whole.
        variance = 3 * sum(value * value for value in chosen) - total * total
        return max(chosen) - min(chosen), variance, abs(total * len(valid) - N_KEPT * overall)

    return min(itertools.combinations(valid, N_KEPT), key=spread)


def _exact(value: Any) -> Fraction | int:
    """The number itself: an int where it is whole, which is fast, else a Fraction. Nothing is rounded."""
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    try:
        exact = Fraction(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"annotation {value} is not a finite number: leave it out, or use None") from error
    return exact.numerator if exact.denominator == 1 else exact
