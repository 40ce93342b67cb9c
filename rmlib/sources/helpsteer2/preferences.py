"""The preference file: which of the two responses annotators prefer, how strongly, and why."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from rmlib.pairs import pair_id
from rmlib.pairs.schema import NEITHER_VALID, check_preference
from rmlib.records.errors import DataError, Place, check_string, check_text, shown
from rmlib.records.files import read_rows, value_of, warn_of
from rmlib.sources.helpsteer2.ratings import Row, parse_prompt, unused_fields

logger = logging.getLogger(__name__)

_SPLITS = {"train": "train", "val": "validation", "validation": "validation"}
_RAW, _SIMILAR = "all_preferences_unprocessed", "three_most_similar_preferences"
_NUMBERS = {_RAW: (3, 5), _SIMILAR: (3, 3)}  # fewest and most entries
_TEXTS = {_RAW: ("justification",), _SIMILAR: ("statement", "elaboration")}
# The statement and elaboration of the row itself repeat one of the three most similar.
_REPEATING = ("preference_statement", "preference_elaboration")
_FIELDS = ("split", "prompt", "response_1", "response_2", "preference_strength", _RAW, _SIMILAR, *_REPEATING)
UNMATCHED = "left out, because it fits no rated pair that still lacks a preference"
OTHER_SPLIT = "left out, because it names another split than the ratings"


def join(pairs: list[Row], path: Path) -> int:
    """Write each preference of the file into its pair, found by the exact text of prompt and both responses.

    A pair takes over the order that its responses have in this file, because the justifications refer to it.
    Rows that fit no pair, or one that has its preference already, are counted and warned of, as are annotations that
    are missing. Returns the number of rows; raises DataError naming file, row and field.
    """
    by_id: dict[str, Row] = {}
    for pair in pairs:
        by_id.setdefault(pair_id(pair["prompt"], pair["response_1"], pair["response_2"]), pair)
    notes = Counter[str]()
    number = 0
    for number, row in enumerate(read_rows(path), start=1):
        preferred = _checked(row, Place(path.name, number), notes)
        texts = preferred["prompt"], preferred["response_1"], preferred["response_2"]
        match = by_id.pop(pair_id(*texts), None) or by_id.pop(pair_id(texts[0], texts[2], texts[1]), None)
        if match is None:
            notes[UNMATCHED] += 1
        elif match["split"] != preferred["split"]:
            notes[OTHER_SPLIT] += 1
        else:
            _write(match, preferred)
    warn_of(notes, path.name, logger)
    return number


def _write(pair: Row, preferred: Row) -> None:
    if pair["response_1"] != preferred["response_1"]:
        pair["ratings_1"], pair["ratings_2"] = pair["ratings_2"], pair["ratings_1"]
    pair.update(preferred)


def _checked(row: Row, place: Place, notes: Counter[str]) -> Row:
    """The columns that the file can fill, from one row of it."""
    notes.update(unused_fields(row, _FIELDS))
    split = value_of(row, "split", place)
    if not isinstance(split, str) or split not in _SPLITS:
        raise DataError(place.at("split"), f"{shown(split)} is not a split", f"Use one of {', '.join(_SPLITS)}")
    return {
        "split": _SPLITS[split],
        "prompt": parse_prompt(value_of(row, "prompt", place), place.at("prompt")),
        "response_1": check_text(value_of(row, "response_1", place), place.at("response_1")),
        "response_2": check_text(value_of(row, "response_2", place), place.at("response_2")),
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
    notes.update(f"{field}: {note}" for note in unused_fields(entry, ("strength", *_TEXTS[field])))
    return checked
