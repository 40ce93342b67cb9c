"""Ratings as files give them become ratings on 0-4, or are refused where nobody can tell their scale."""

import math
from typing import Any

from rmlib.pairs.schema import RATING_RANGE
from rmlib.records.errors import DataError, Place, check_number, shown

Row = dict[str, Any]


def rate(rows: list[tuple[Place, Row]], scale: tuple[float, float] | None) -> None:
    """Bring the ratings of both responses together in `ratings_1` and `ratings_2`, on 0-4."""
    given = []  # place of a rating, the ratings that hold it, the attribute
    for place, row in rows:
        for side in "12":
            column, score = f"ratings_{side}", _rating(row.get(f"score_{side}"))
            if isinstance(row.get(column), dict):
                row[column] = {name: _rating(value) for name, value in row[column].items()}
            if score is not None:
                row[column] = row.get(column) or {}
                if row[column].get("helpfulness", score) not in (None, score):
                    problem = f"{shown(score)} beside another helpfulness, {shown(row[column]['helpfulness'])}"
                    raise DataError(place.at(f"score_{side}"), problem, "Give one of the two")
                row[column]["helpfulness"] = score
            if isinstance(row.get(column), dict) and row.get("pair_id") is None:
                given += [
                    (place.at(f"{column}.{name}"), row[column], name)
                    for name, value in row[column].items()
                    if value is not None
                ]
    if scale is None:
        _refuse_other_scale(given)
        return
    worst, best = _checked_scale(scale)
    for place, ratings, name in given:
        number = check_number(ratings[name], (min(worst, best), max(worst, best)), place)
        low, high = RATING_RANGE
        ratings[name] = low + (high - low) * (number - worst) / (best - worst)


def _rating(value: Any) -> Any:
    """A rating as it is, one written as a text as a number; None where there is none."""
    if isinstance(value, str) and is_number(value):
        value = float(value)
    nothing = isinstance(value, str) and not value.strip() or isinstance(value, float) and math.isnan(value)
    return None if nothing else value


def _refuse_other_scale(given: list[tuple[Place, Row, str]]) -> None:
    """Ratings are taken to be on 0-4 unless their values say, or leave open, that they are not."""
    numbers = [
        (ratings[name], place)
        for place, ratings, name in given
        if isinstance(ratings[name], int | float) and not isinstance(ratings[name], bool)
    ]
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


def is_number(key: str) -> bool:
    try:
        return math.isfinite(float(key))
    except ValueError:
        return False
