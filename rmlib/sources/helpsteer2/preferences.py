"""The preference file: which of the two responses annotators prefer, how strongly, and why."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from rmlib.pairs import pair_id
from rmlib.schema import NEITHER_VALID, DataError, Place, check_preference, check_string, check_text, shown
from rmlib.sources.files import read_rows, value_of
from rmlib.sources.helpsteer2.ratings import parse_prompt

logger = logging.getLogger(__name__)

_SPLITS = {"train": "train", "val": "validation", "validation": "validation"}


def join(pairs: list[dict[str, Any]], path: Path) -> None:
    """Write each preference of the file into its pair, found by the exact text of prompt and both responses.

    A pair takes over the order that its responses have in this file, because the justifications refer to it.
    Rows that fit no pair, or one that has its preference already, are counted and warned of.
    """
    by_id: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        by_id.setdefault(pair_id(pair["prompt"], pair["response_1"], pair["response_2"]), pair)
    unused = Counter[str]()
    for number, row in enumerate(read_rows(path), start=1):
        preferred = _checked(row, Place(path.name, number))
        texts = preferred["prompt"], preferred["response_1"], preferred["response_2"]
        match = by_id.pop(pair_id(*texts), None) or by_id.pop(pair_id(texts[0], texts[2], texts[1]), None)
        if match is None:
            unused["fit no rated pair that still lacks a preference"] += 1
        elif match["split"] != preferred["split"]:
            unused["name another split than the ratings"] += 1
        else:
            _write(match, preferred)
    for reason, count in unused.items():
        logger.warning("%s: left out %d preferences that %s", path.name, count, reason)


def _write(pair: dict[str, Any], preferred: dict[str, Any]) -> None:
    if pair["response_1"] != preferred["response_1"]:
        pair["ratings_1"], pair["ratings_2"] = pair["ratings_2"], pair["ratings_1"]
    pair.update(preferred)


def _checked(row: dict[str, Any], place: Place) -> dict[str, Any]:
    """The columns that the file can fill, from one row of it."""
    split = value_of(row, "split", place)
    if not isinstance(split, str) or split not in _SPLITS:
        raise DataError(place.at("split"), f"{shown(split)} is not a split", f"Use one of {', '.join(_SPLITS)}")
    return {
        "split": _SPLITS[split],
        "prompt": parse_prompt(value_of(row, "prompt", place), place.at("prompt")),
        "response_1": check_text(value_of(row, "response_1", place), place.at("response_1")),
        "response_2": check_text(value_of(row, "response_2", place), place.at("response_2")),
        "preference": check_preference(value_of(row, "preference_strength", place), place.at("preference_strength")),
        "annotations": _annotations(row, place),
    }


def _annotations(row: dict[str, Any], place: Place) -> list[dict[str, Any]] | None:
    """Every annotator's preference and raw justification; statement and elaboration for the three most similar.

    The file lists the three apart from the raw ones and does not say which is which: an entry is given to the first
    annotation of equal preference whose raw text contains its statement, else to the first of equal preference.
    """
    raw = _entries(row, "all_preferences_unprocessed", place)
    annotations = [{"preference": entry["strength"], "justification": entry.get("justification")} for entry in raw]
    for entry in _entries(row, "three_most_similar_preferences", place):
        statement = entry.get("statement") or ""
        free = [a for a in annotations if a["preference"] == entry["strength"] and "statement" not in a]
        if not free:
            free = [{"preference": entry["strength"], "justification": None}]
            annotations += free
        quoting = [annotation for annotation in free if statement in (annotation["justification"] or "")]
        (quoting or free)[0].update(statement=statement, elaboration=entry.get("elaboration"))
    return annotations or None


def _entries(row: dict[str, Any], field: str, place: Place) -> list[dict[str, Any]]:
    entries = row.get(field) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(place.at(field), f"{shown(entries)} is not a list of objects", "Use the file as released")
    for index, entry in enumerate(entries):
        if entry.get("strength") != NEITHER_VALID:
            entry["strength"] = check_preference(entry.get("strength"), place.at(f"{field}[{index}].strength"))
        for text in ("statement", "elaboration", "justification"):
            if entry.get(text) is not None:
                check_string(entry[text], place.at(f"{field}[{index}].{text}"))
    return entries
