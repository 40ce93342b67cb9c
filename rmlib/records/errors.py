"""Errors that say where: the file, row and field of an input, what is wrong with it and what to do."""

import math
from numbers import Real
from typing import Any, NamedTuple

_LARGEST = 1e308  # beyond, an integer may have no float


class Place(NamedTuple):
    """Where a value stands: the file or source, the row (from 1), the field."""

    origin: str
    row: int | None = None
    field: str | None = None

    def at(self, field: str) -> "Place":
        """The same row, another field."""
        return Place(self.origin, self.row, field)

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        return self.origin + row + ("" if self.field is None else f", field '{self.field}'")


class DataError(ValueError):
    """Input that cannot be used: says where it stands, what is wrong with it and what to do.

    `given` is the row as it stands in the file, where it could not even be taken apart.
    """

    def __init__(self, place: Place, problem: str, remedy: str, given: Any = None) -> None:
        # A quoted name may hold what no terminal or file can: half a surrogate pair.
        message = f"{place}: {problem}. {remedy}.".encode(errors="backslashreplace").decode()
        super().__init__(message)
        self.place, self.problem, self.remedy, self.given = place, problem, remedy, given


def shown(value: Any) -> str:
    """A value as an error message quotes it: at most 60 characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer of too many digits
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 60 else text[:57] + "..."


def check_string(value: Any, place: Place) -> str:
    """The value, if it is a valid Unicode string (it may be empty); else DataError."""
    if not isinstance(value, str):
        raise DataError(place, f"{shown(value)} is not a text", "Give a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(place, f"not valid Unicode ({error.reason})", "Write the file as UTF-8") from error
    return value


def check_text(value: Any, place: Place) -> str:
    """The value, if it is a string with something in it; else DataError."""
    if not check_string(value, place).strip():
        raise DataError(place, "the text is empty", "Fill it in or remove the pair")
    return value


def number_within(value: Any, limits: tuple[float, float]) -> float | None:
    """The value as a float if it is a plain number within the limits; None leaves the judgement to check_number.

    For the many: a million ratings are read in a second where nothing is prepared for an error message.
    """
    low, high = limits
    plain = type(value) in (int, float) and low <= value <= high and -_LARGEST < value < _LARGEST
    return float(value) if plain else None


def check_number(value: Any, limits: tuple[float, float], place: Place) -> float:
    """The value as a float, if it is a number within the limits; else DataError."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(place, f"{shown(value)} is not a finite number", "Give one, or remove the pair")
    low, high = limits
    if not low <= number <= high:
        raise DataError(place, f"{shown(value)} is outside {low} to {high}", "Correct it, or remove the pair")
    return number
