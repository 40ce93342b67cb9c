"""Ratings as files give them become ratings on 0-4, or are refused where nobody can tell their scale."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rmlib.pairs.schema import RATING_RANGE
from rmlib.records.errors import DataError, Place, check_number, shown

logger = logging.getLogger(__name__)

Row = dict[str, Any]
MANY = 20  # ratings after which it is odd that none of a scale from 0 is below 1
BESIDE = "score_beside_"  # and 1 or 2: a score beside a choice, on whatever scale


class Refused:
    """Rows that cannot be read: each raises, or is put beside its error in a list and left out of the others."""

    def __init__(self, found: list[tuple[DataError, Row]] | None) -> None:
        self._found, self._ids = found, set[int]()

    @contextmanager
    def row(self, row: Row) -> Iterator[None]:
        """Refuses the row for a DataError inside."""
        try:
            yield
        except DataError as error:
            if self._found is None:
                raise
            if id(row) not in self._ids:  # both of its ratings may be wrong
                self._found.append((error, row))
            self._ids.add(id(row))

    def others(self, rows: list[tuple[Place, Row]]) -> list[tuple[Place, Row]]:
        """The rows that were not refused."""
        return [(place, row) for place, row in rows if id(row) not in self._ids]


def rate(rows: list[tuple[Place, Row]], scale: tuple[float, float] | None, refused: Refused) -> int:
    """Bring the ratings of both responses together in `ratings_1` and `ratings_2`, on 0-4.

    Scores beside a choice are ratings where a scale is given. Returns how many ratings there are, apart from rows of a
    table that we wrote. Raises DataError where nobody can tell their scale; one that is no number, or off its scale, is
    `refused`.
    """
    for _, row in rows if scale is not None else ():
        row |= {f"score_{side}": row[BESIDE + side] for side in "12" if BESIDE + side in row}
    given: list[tuple[Place, Row, str, Row]] = []  # place of a rating, the ratings that hold it, the attribute, the row
    for place, row in rows:
        for side in "12":
            with refused.row(row):
                given += _gathered(place, row, side)
    given = [each for each in given if each[3].get("pair_id") is None]
    if scale is None:
        _refuse_other_scale([(ratings[name], place) for place, ratings, name, _ in given])
        return len(given)
    worst, best = _checked_scale(scale)
    low, high = RATING_RANGE
    for place, ratings, name, row in given:
        with refused.row(row):
            number = check_number(ratings[name], (min(worst, best), max(worst, best)), place)
            ratings[name] = low + (high - low) * (number - worst) / (best - worst)
    return len(given)


def _gathered(place: Place, row: Row, side: str) -> list[tuple[Place, Row, str, Row]]:
    """The ratings of one response as numbers, in a dictionary of their own."""
    column, score = f"ratings_{side}", _rating(row.get(f"score_{side}"))
    given = row.get(column)
    if given is not None and not isinstance(given, Mapping):
        raise DataError(place.at(column), f"{shown(given)} does not map attributes", "Give each rating by its name")
    ratings = {name: _rating(value) for name, value in (given or {}).items()}
    if score is not None:
        if ratings.get("helpfulness", score) not in (None, score):
            problem = f"{shown(score)} beside another helpfulness, {shown(ratings['helpfulness'])}"
            raise DataError(place.at(f"score_{side}"), problem, "Give one of the two")
        ratings["helpfulness"] = score
    row[column] = ratings or None
    found = []
    for name, value in ratings.items():
        if value is not None:
            at = place.at(f"{column}.{name}")
            ratings[name] = check_number(value, (-math.inf, math.inf), at)
            found.append((at, ratings, name, row))
    return found


def _rating(value: Any) -> Any:
    """A rating as it is, one written as a text as a number; None where there is none."""
    if isinstance(value, str) and is_number(value):
        value = float(value)
    nothing = isinstance(value, str) and not value.strip() or isinstance(value, float) and math.isnan(value)
    return None if nothing else value


def _refuse_other_scale(numbers: list[tuple[float, Place]]) -> None:
    """Ratings are taken to be on 0-4 unless their values say, or leave open, that they are not."""
    if not numbers:
        return
    (least, at_least), (most, at_most) = (end(numbers, key=lambda one: one[0]) for end in (min, max))
    low, high = RATING_RANGE
    seen = f"{len(numbers)} ratings reach from {least:g} to {most:g}"
    if least < low or most > high:
        problem, remedy = f"{seen}, outside {low} to {high}", "Name the ends of their scale, as in rating_scale=(1, 5)"
        raise DataError(at_least if least < low else at_most, problem, remedy)
    if 0 < most <= 1:
        problem = f"{seen}: the scale may be 0 to 1, or {low} to {high}"
        raise DataError(at_most, problem, f"Say which: rating_scale=(0, 1) or rating_scale=({low}, {high})")
    if least >= 1 and len(numbers) >= MANY:
        problem = f"{seen} and none is below 1: the scale may begin there"
        raise DataError(at_least, problem, f"Name its ends: rating_scale=({low}, {high}), or (1, 5), (1, 4), ...")


def _checked_scale(scale: Any) -> tuple[float, float]:
    try:
        worst, best = (float(end) for end in scale)
    except (TypeError, ValueError):
        worst = best = math.nan
    if not (math.isfinite(worst) and math.isfinite(best) and worst != best):
        problem = f"{shown(scale)} is not a scale"
        raise DataError(Place("rating_scale"), problem, "Give its two ends, the worse first, as in (1, 5)")
    return worst, best


def helpfulness(row: Row) -> tuple[Any, Any] | None:
    """Both ratings; None where one is missing."""
    first, second = ((row.get(f"ratings_{side}") or {}).get("helpfulness") for side in "12")
    return None if first is None or second is None else (first, second)


def note_contradictions(rows: list[tuple[Place, Row]]) -> None:
    """Log preferences against ratings, and scores beside a choice, which are compared on whatever scale they are."""
    found, beside = [], []
    for place, row in rows:
        ratings = helpfulness(row)
        if ratings is None and any(BESIDE + side in row for side in "12"):
            ratings = _scores_beside(row)
            beside.append(place)
        if ratings is not None and (row["preference"] or 0) * (ratings[1] - ratings[0]) < 0:
            found.append(place)
    if beside:
        message = "%s: scores beside the preference of %d rows are no ratings without rating_scale"
        logger.warning(message, beside[0].origin, len(beside))
    if found:
        message = "%s: the preference of %d rows contradicts their ratings; the preference is kept: %s"
        logger.warning(message, found[0].origin, len(found), listed(found))


def _scores_beside(row: Row) -> tuple[Any, Any] | None:
    """The scores beside a choice, whose scale nobody knows; None where one is missing or no number."""
    first, second = (_rating(row.get(BESIDE + side)) for side in "12")
    are_numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (first, second))
    return (first, second) if are_numbers else None


def is_number(key: str) -> bool:
    try:
        return math.isfinite(float(key))
    except ValueError:
        return False


def listed(places: list[Place]) -> str:
    """The first ten places."""
    named = (f"{place.origin}, row {place.row}" for place in places[:10])
    return "; ".join(named) + ("; ..." if len(places) > 10 else "")
