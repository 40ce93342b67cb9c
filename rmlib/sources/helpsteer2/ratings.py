"""The rating files: two adjacent rows, one a response, become one pair."""

import logging
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from rmlib.pairs.schema import ATTRIBUTES, RATING_RANGE
from rmlib.records.errors import DataError, Place, check_number, check_text, number_within, shown
from rmlib.records.files import read_rows, value_of, warn_of

logger = logging.getLogger(__name__)

Row = dict[str, Any]
FIELDS = ("prompt", "response", *ATTRIBUTES)
_TURN = re.compile(r"\n<extra_id_1>(User|Assistant)\n")


def read(path: Path, split: str) -> dict[Place, Row]:
    """One row for make_pairs for each prompt of the file, by the place of its first response.

    Raises DataError naming file, row and field. Fields outside the layout are counted and warned of.
    """
    pairs: dict[Place, Row] = {}
    unused = Counter[str]()
    first: Row | None = None
    for number, given in enumerate(read_rows(path), start=1):
        place = Place(path.name, number)
        row = _checked(given, place)
        unused.update(unused_fields(given, FIELDS))
        if first is None:
            first = row
            continue
        if first["prompt"] != row["prompt"]:
            problem, remedy = "differs from the row before", "Keep the two responses to a prompt in adjacent rows"
            raise DataError(place.at("prompt"), problem, remedy)
        start = Place(path.name, number - 1)
        prompt = parse_prompt(first["prompt"], start.at("prompt"))
        pairs[start] = {"split": split, "prompt": prompt} | _side(first, 1) | _side(row, 2)
        first = None
    if first is not None:
        raise DataError(place, "odd number of rows: this one has no partner", "Give each prompt two adjacent rows")
    warn_of(unused, path.name, logger)
    _warn_of_irregular_turns(pairs, path.name)
    return pairs


def parse_prompt(text: str, place: Place) -> list[dict[str, str]]:
    """The messages of a prompt: `<extra_id_1>` and a role mark each turn after the first. Raises DataError."""
    first, *marked = _TURN.split(check_text(text, place))
    messages = [{"role": "user", "content": first}]
    for role, content in zip(marked[::2], marked[1::2], strict=True):
        messages.append({"role": role.lower(), "content": content})
    if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise DataError(place, "the prompt does not end with a user's text", "Complete it, or remove the pair")
    return messages


def unused_fields(row: Row, known: tuple[str, ...]) -> list[str]:
    """A note for each field of the row that is not known."""
    return [f"field {shown(name)} not used" for name in row if name not in known]


def _checked(row: Row, place: Place) -> Row:
    for field in ("prompt", "response"):
        check_text(value_of(row, field, place), place.at(field))
    for attribute in ATTRIBUTES:
        value = value_of(row, attribute, place)
        if number_within(value, RATING_RANGE) is None:
            check_number(value, RATING_RANGE, place.at(attribute))
    return row


def _side(row: Row, number: int) -> Row:
    ratings = {attribute: row[attribute] for attribute in ATTRIBUTES}
    return {f"response_{number}": row["response"], f"ratings_{number}": ratings}


def _warn_of_irregular_turns(pairs: dict[Place, Row], origin: str) -> None:
    irregular = [
        place.row
        for place, pair in pairs.items()
        if any("<extra_id_1>" in message["content"] for message in pair["prompt"])
        or any(one["role"] == two["role"] for one, two in pairwise(pair["prompt"]))
    ]
    if irregular:
        problem = "turn markers left in the text, or two turns of one role in a row"
        logger.warning("%s: %d prompts with %s; first at row %d", origin, len(irregular), problem, irregular[0])
