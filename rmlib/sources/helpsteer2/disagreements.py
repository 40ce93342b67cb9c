"""The file of disagreements: what each annotator gave a response."""

import logging
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rmlib.pairs.schema import ATTRIBUTES, RATING_RANGE
from rmlib.records.errors import DataError, Place, check_number, check_text, number_within, shown
from rmlib.records.files import read_rows, value_of, warn_of
from rmlib.sources.helpsteer2.ratings import FIELDS, Row, parse_prompt, unused_fields

logger = logging.getLogger(__name__)

Key = tuple[tuple[str, str] | str, ...]  # role and text of each message, then the response
UNMATCHED = "left out, because no rated response has this prompt and text"
REPEATED = "left out, because an earlier row has the annotations of this response"
MISSING = "no annotations of a rated response"
EMPTY = "no annotation in any list"
UNEVEN = "lists of different lengths, the shorter taken to lack their last annotators"


def join(pairs: list[Row], path: Path) -> int:
    """Append each row's annotations to the pair that holds its response, found by the exact text; returns the rows.

    They have no preference, and only `ratings_1` or only `ratings_2`; the n-th values of all attributes are taken to be
    one annotator's. Call it after the preferences are joined, which may exchange the responses.
    The released file has more rows than there are rated responses: rows that fit none are counted and warned of, as
    are second rows for a response, and responses without a row. Raises DataError naming file, row and field.
    """
    sides: dict[Key, list[tuple[int, int]]] = {}
    for index, pair in enumerate(pairs):
        for side in (1, 2):
            sides.setdefault(_key(pair["prompt"], pair[f"response_{side}"]), []).append((index, side))
    found: dict[tuple[int, int], list[Row]] = {}
    notes = Counter[str]()
    number = 0
    for number, row in enumerate(read_rows(path), start=1):
        response, annotators = _checked(row, Place(path.name, number), notes)
        if sides.get(response):
            found[sides[response].pop(0)] = annotators
        else:
            notes[REPEATED if response in sides else UNMATCHED] += 1
    for (index, side), annotators in sorted(found.items(), key=lambda item: item[0]):
        added = [{"preference": None, f"ratings_{side}": ratings} for ratings in annotators]
        pairs[index]["annotations"] = (pairs[index].get("annotations") or []) + added or None
    notes[MISSING] += sum(map(len, sides.values()))
    warn_of(notes, path.name, logger)
    return number


def _checked(row: Row, place: Place, notes: Counter[str]) -> tuple[Key, list[Row]]:
    """What names the response, and one set of ratings for each annotator."""
    notes.update(unused_fields(row, FIELDS))
    prompt = parse_prompt(value_of(row, "prompt", place), place.at("prompt"))
    response = check_text(value_of(row, "response", place), place.at("response"))
    lists = [_values(value_of(row, attribute, place), place.at(attribute)) for attribute in ATTRIBUTES]
    if not any(lists):
        notes[EMPTY] += 1
    elif len({len(values) for values in lists}) > 1:
        notes[UNEVEN] += 1
    annotators = [dict(zip(ATTRIBUTES, values, strict=True)) for values in zip_longest(*lists)]
    return _key(prompt, response), annotators


def _key(prompt: list[dict[str, str]], response: str) -> Key:
    return (*((message["role"], message["content"]) for message in prompt), response)


def _values(values: Any, place: Place) -> list[float]:
    if not isinstance(values, list):
        raise DataError(place, f"{shown(values)} is not a list of ratings", "Use the file as released")
    numbers = [number_within(value, RATING_RANGE) for value in values]
    return [
        check_number(values[index], RATING_RANGE, place.at(f"{place.field}[{index}]")) if number is None else number
        for index, number in enumerate(numbers)
    ]
