"""The rating files: two adjacent rows, one a response, become one pair."""

import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from rmlib.schema import ATTRIBUTES, RATING_RANGE, DataError, Place, check_number, check_text
from rmlib.sources.files import read_rows, value_of

logger = logging.getLogger(__name__)

_TURN = re.compile(r"\n<extra_id_1>(User|Assistant)\n")


def read(path: Path, split: str) -> list[dict[str, Any]]:
    """One row for make_pairs for each prompt of the file. Raises DataError naming file, row and field."""
    rows = [_checked(row, Place(path.name, number)) for number, row in enumerate(read_rows(path), start=1)]
    pairs = []
    for index in range(0, len(rows) - 1, 2):
        first, second = rows[index : index + 2]
        if first["prompt"] != second["prompt"]:
            place = Place(path.name, index + 2, "prompt")
            raise DataError(place, "differs from the row before", "Keep the two responses to a prompt in adjacent rows")
        prompt = parse_prompt(first["prompt"], Place(path.name, index + 1, "prompt"))
        pairs.append({"split": split, "prompt": prompt} | _side(first, 1) | _side(second, 2))
    if len(rows) % 2:
        problem = "odd number of rows: this one has no partner"
        raise DataError(Place(path.name, len(rows)), problem, "Give each prompt two adjacent rows")
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


def _checked(row: dict[str, Any], place: Place) -> dict[str, Any]:
    for field in ("prompt", "response"):
        check_text(value_of(row, field, place), place.at(field))
    for attribute in ATTRIBUTES:
        check_number(value_of(row, attribute, place), RATING_RANGE, place.at(attribute))
    return row


def _side(row: dict[str, Any], number: int) -> dict[str, Any]:
    ratings = {attribute: row[attribute] for attribute in ATTRIBUTES}
    return {f"response_{number}": row["response"], f"ratings_{number}": ratings}


def _warn_of_irregular_turns(pairs: list[dict[str, Any]], origin: str) -> None:
    irregular = [
        2 * index + 1
        for index, pair in enumerate(pairs)
        if any("<extra_id_1>" in message["content"] for message in pair["prompt"])
        or any(one["role"] == two["role"] for one, two in pairwise(pair["prompt"]))
    ]
    if irregular:
        problem = "turn markers left in the text, or two turns of one role in a row"
        logger.warning("%s: %d prompts with %s; first at row %d", origin, len(irregular), problem, irregular[0])
