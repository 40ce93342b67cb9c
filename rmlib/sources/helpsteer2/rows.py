"""The rows of the three kinds of files: ratings become pairs, preferences and single annotators' ratings join them."""

import logging
import re
from collections import Counter
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from rmlib.pairs import pair_id
from rmlib.pairs.schema import ATTRIBUTES, NEITHER_VALID, RATING_RANGE, check_preference
from rmlib.records.errors import DataError, Place, check_number, check_string, number_within, shown
from rmlib.records.files import placed_rows, text_of, value_of, warn_of
from rmlib.records.hashing import text_key

logger = logging.getLogger(__name__)

Row = dict[str, Any]

_RATED = ("prompt", "response", *ATTRIBUTES)
_TURN = re.compile(r"\n<extra_id_1>(User|Assistant)\n")

_SPLITS = {"train": "train", "val": "validation", "validation": "validation"}
_RAW, _SIMILAR = "all_preferences_unprocessed", "three_most_similar_preferences"
_NUMBERS = {_RAW: (3, 5), _SIMILAR: (3, 3)}  # fewest and most entries
_TEXTS = {_RAW: ("justification",), _SIMILAR: ("statement", "elaboration")}
# The statement and elaboration of the row itself repeat one of the three most similar.
_REPEATING = ("preference_statement", "preference_elaboration")
_PREFERRED = ("split", "prompt", "response_1", "response_2", "preference_strength", _RAW, _SIMILAR, *_REPEATING)
UNMATCHED_PAIR = "left out, because it fits no rated pair that still lacks a preference"
OTHER_SPLIT = "left out, because it names another split than the ratings"

UNMATCHED_RESPONSE = "left out, because no rated response has this prompt and text"
REPEATED = "left out, because an earlier row has the annotations of this response"
MISSING = "no annotations of a rated response"
EMPTY = "no annotation in any list"
UNEVEN = "lists of different lengths, the shorter taken to lack their last annotators"


# --- ratings ----------------------------------------------------------------------------------------------------------


def read_ratings(path: Path, split: str) -> dict[Place, Row]:
    """One row for make_pairs for each prompt of the file, of two adjacent rows, by the place of its first response.

    Raises DataError naming file, row and field. Fields outside the layout are counted and warned of.
    """
    pairs: dict[Place, Row] = {}
    notes = Counter[str]()
    first: Row | None = None
    for place, row in placed_rows(path):
        response = {field: text_of(row, field, place) for field in ("prompt", "response")}
        rated = response | {"ratings": {name: _rating(value_of(row, name, place), place, name) for name in ATTRIBUTES}}
        notes.update(_unused_fields(row, _RATED))
        if first is None:
            first, start = rated, place
            continue
        if first["prompt"] != rated["prompt"]:
            problem, remedy = "differs from the row before", "Keep the two responses to a prompt in adjacent rows"
            raise DataError(place.at("prompt"), problem, remedy)
        pairs[start] = {"split": split, "prompt": _parse_prompt(first["prompt"], start.at("prompt"))}
        for side, one in enumerate((first, rated), start=1):
            pairs[start] |= {f"response_{side}": one["response"], f"ratings_{side}": one["ratings"]}
        first = None
    if first is not None:
        raise DataError(place, "odd number of rows: this one has no partner", "Give each prompt two adjacent rows")
    warn_of(notes, path.name, logger)
    _warn_of_irregular_turns(pairs, path.name)
    return pairs


def _parse_prompt(text: str, place: Place) -> list[dict[str, str]]:
    """The messages of a prompt: `<extra_id_1>` and a role mark each turn after the first. Raises DataError."""
    first, *marked = _TURN.split(text)
    messages = [{"role": "user", "content": first}]
    for role, content in zip(marked[::2], marked[1::2], strict=True):
        messages.append({"role": role.lower(), "content": content})
    if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise DataError(place, "the prompt does not end with a user's text", "Complete it, or remove the pair")
    return messages


def _unused_fields(row: Row, known: tuple[str, ...]) -> list[str]:
    """A note for each field of the row that is not known."""
    return [f"field {shown(name)} not used" for name in row if name not in known]


def _rating(value: Any, place: Place, field: str) -> float:
    number = number_within(value, RATING_RANGE)
    return check_number(value, RATING_RANGE, place.at(field)) if number is None else number


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


# --- preferences ------------------------------------------------------------------------------------------------------


def join_preferences(pairs: list[Row], path: Path) -> int:
    """Write each preference of the file into its pair, found by the exact text of prompt and both responses.

    A pair takes over the order that its responses have in this file, because the justifications refer to it.
    Rows that fit no pair, or one that has its preference already, are counted and warned of, as are annotations that
    are missing. Returns the number of rows; raises DataError naming file, row and field.
    """
    by_id: dict[str, Row] = {}
    for pair in pairs:
        by_id.setdefault(pair_id(pair["prompt"], pair["response_1"], pair["response_2"]), pair)
    notes = Counter[str]()
    n_rows = 0
    for place, row in placed_rows(path):
        n_rows += 1
        preferred = _preferred(row, place, notes)
        texts = preferred["prompt"], preferred["response_1"], preferred["response_2"]
        match = by_id.pop(pair_id(*texts), None) or by_id.pop(pair_id(texts[0], texts[2], texts[1]), None)
        if match is None:
            notes[UNMATCHED_PAIR] += 1
        elif match["split"] != preferred["split"]:
            notes[OTHER_SPLIT] += 1
        else:
            if match["response_1"] != preferred["response_1"]:
                match["ratings_1"], match["ratings_2"] = match["ratings_2"], match["ratings_1"]
            match.update(preferred)
    warn_of(notes, path.name, logger)
    return n_rows


def _preferred(row: Row, place: Place, notes: Counter[str]) -> Row:
    """The columns that the file can fill, from one row of it."""
    notes.update(_unused_fields(row, _PREFERRED))
    split = value_of(row, "split", place)
    if not isinstance(split, str) or split not in _SPLITS:
        raise DataError(place.at("split"), f"{shown(split)} is not a split", f"Use one of {', '.join(_SPLITS)}")
    return {
        "split": _SPLITS[split],
        "prompt": _parse_prompt(text_of(row, "prompt", place), place.at("prompt")),
        "response_1": text_of(row, "response_1", place),
        "response_2": text_of(row, "response_2", place),
        "preference": check_preference(value_of(row, "preference_strength", place), place.at("preference_strength")),
        "annotations": _annotations(row, place, notes),
    }


def _annotations(row: Row, place: Place, notes: Counter[str]) -> list[Row] | None:
    """Every annotator's preference and raw justification; statement and elaboration for the three most similar.

    The file lists the three apart from the raw ones and does not say which is which: an entry is given to the first
    annotation of equal preference whose raw text contains its statement, else to the first of equal preference.
    """
    raw = _entries(row, _RAW, place, notes)
    annotations = [{"preference": entry["strength"], "justification": entry["justification"]} for entry in raw]
    for entry in _entries(row, _SIMILAR, place, notes):
        free = [a for a in annotations if a["preference"] == entry["strength"] and "statement" not in a]
        if not free:
            notes[f"a strength of {_SIMILAR} that is not among {_RAW}, added as an annotation"] += 1
            free = [{"preference": entry["strength"], "justification": None}]
            annotations += free
        quoting = [a for a in free if a["justification"] and (entry["statement"] or "") in a["justification"]]
        notes[f"a statement of {_SIMILAR} that no text of {_RAW} quotes, given to one of its strength"] += not quoting
        (quoting or free)[0].update(statement=entry["statement"], elaboration=entry["elaboration"])
    return annotations or None


def _entries(row: Row, field: str, place: Place, notes: Counter[str]) -> list[Row]:
    """The checked entries of a list of annotations, with every text of the layout; a missing one is null, and noted."""
    entries = row.get(field)
    if entries is None:
        entries = []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(place.at(field), f"{shown(entries)} is not a list of objects", "Use the file as released")
    fewest, most = _NUMBERS[field]
    if not fewest <= len(entries) <= most:
        notes[f"{len(entries)} entries in {field}, outside {fewest} to {most}"] += 1
    return [_entry(entry, field, place.at(f"{field}[{index}]"), notes) for index, entry in enumerate(entries)]


def _entry(entry: Row, field: str, place: Place, notes: Counter[str]) -> Row:
    strength = entry.get("strength")
    if strength != NEITHER_VALID:
        strength = check_preference(strength, place.at(f"{place.field}.strength"))
    checked: dict[str, Any] = {"strength": int(strength)}
    for name in _TEXTS[field]:
        checked[name] = entry.get(name)
        if checked[name] is None:
            notes[f"an entry of {field} without {name}"] += 1
        else:
            check_string(checked[name], place.at(f"{place.field}.{name}"))
    notes.update(f"{field}: {note}" for note in _unused_fields(entry, ("strength", *_TEXTS[field])))
    return checked


# --- ratings of single annotators -------------------------------------------------------------------------------------


def join_disagreements(pairs: list[Row], path: Path) -> int:
    """Append each row's annotations to the pair that holds its response, found by the exact text; returns the rows.

    They have no preference, and only `ratings_1` or only `ratings_2`; the n-th values of all attributes are taken to be
    one annotator's. Call it after the preferences are joined, which may exchange the responses.
    The released file has more rows than there are rated responses: rows that fit none are counted and warned of, as
    are second rows for a response, and responses without a row. Raises DataError naming file, row and field.
    """
    sides: dict[str, list[tuple[int, int]]] = {}
    for index, pair in enumerate(pairs):
        for side in (1, 2):
            sides.setdefault(text_key(pair["prompt"], pair[f"response_{side}"]), []).append((index, side))
    found: dict[tuple[int, int], list[Row]] = {}
    notes = Counter[str]()
    n_rows = 0
    for place, row in placed_rows(path):
        n_rows += 1
        response, annotators = _annotators(row, place, notes)
        if sides.get(response):
            found[sides[response].pop(0)] = annotators
        else:
            notes[REPEATED if response in sides else UNMATCHED_RESPONSE] += 1
    for (index, side), annotators in sorted(found.items(), key=lambda item: item[0]):
        added = [{"preference": None, f"ratings_{side}": ratings} for ratings in annotators]
        pairs[index]["annotations"] = (pairs[index].get("annotations") or []) + added or None
    notes[MISSING] += sum(map(len, sides.values()))
    warn_of(notes, path.name, logger)
    return n_rows


def _annotators(row: Row, place: Place, notes: Counter[str]) -> tuple[str, list[Row]]:
    """What names the response, and one set of ratings for each annotator."""
    notes.update(_unused_fields(row, _RATED))
    prompt = _parse_prompt(text_of(row, "prompt", place), place.at("prompt"))
    response = text_of(row, "response", place)
    lists = [_values(row, attribute, place) for attribute in ATTRIBUTES]
    if not any(lists):
        notes[EMPTY] += 1
    elif len({len(values) for values in lists}) > 1:
        notes[UNEVEN] += 1
    annotators = [dict(zip(ATTRIBUTES, values, strict=True)) for values in zip_longest(*lists)]
    return text_key(prompt, response), annotators


def _values(row: Row, attribute: str, place: Place) -> list[float]:
    values = value_of(row, attribute, place)
    if not isinstance(values, list):
        raise DataError(place.at(attribute), f"{shown(values)} is not a list of ratings", "Use the file as released")
    return [_rating(value, place, f"{attribute}[{index}]") for index, value in enumerate(values)]
