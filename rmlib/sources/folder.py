"""Anyone's own pairs: a folder of .jsonl, .jsonl.gz or .parquet files, each row in one of two layouts.

- pairs: `prompt` (a text or messages), `response_1`, `response_2`, and `preference` or `ratings_1` and `ratings_2`;
- chosen and rejected, as TRL and `preference_view` have them: `chosen`, `rejected` (texts or messages), `prompt` unless
  the two are whole conversations, and `strength` (1..3) where it is known.

The split is a column `split`, or the start of the file's name (train, validation, val, test).
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib.pairs import ANNOTATED, DERIVED, make_pairs, pair_id, preference_from_ratings
from rmlib.pairs.schema import FEATURES, check_messages, check_preference, check_row
from rmlib.records.errors import DataError, Place, check_text, shown
from rmlib.records.files import JSONL_ENDINGS, contents, folder_of, placed_rows, value_of, warn_of
from rmlib.records.hashing import prompt_key

logger = logging.getLogger(__name__)

ENDINGS = (*JSONL_ENDINGS, ".parquet")
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "validation"}
_SPLIT_IN_NAME = re.compile(rf"({'|'.join(_SPLITS)})(?![a-z])", re.IGNORECASE)
_COLUMNS = {*FEATURES, "chosen", "rejected", "strength"}


def load(source: str | Path) -> Dataset:
    """The pairs of every file in the folder.

    Where no row is named as validation, a tenth of the prompts becomes it; where no row has a preference, it is derived
    from the helpfulness ratings; both are logged. Raises DataError naming file, row and field.
    """
    folder = folder_of(source)
    paths = sorted(path for path in folder.iterdir() if path.name.endswith(ENDINGS) and path.is_file())
    if not paths:
        problem = f"no {', '.join(ENDINGS)} file; the folder holds {contents(folder)}"
        raise DataError(Place(str(folder)), problem, "Add a file of pairs, or name another folder")
    rows = [row for path in paths for row in _read(path)]
    _fill_splits(rows)
    preferences = _fill_preferences(rows, folder)
    return make_pairs(rows, origin="the folder of pairs", preferences=preferences)


def _read(path: Path) -> list[dict[str, Any]]:
    """Checked rows of the table; the split is null where nothing names it."""
    rows, notes = [], Counter[str]()
    for place, given in placed_rows(path):
        split = _split(given, path.name, place)
        pair = _from_chosen(given, place) if "chosen" in given else _from_responses(given, place)
        rows.append(check_row(pair | {"split": split or "train"}, place) | {"split": split})
        notes.update(f"column {column} not used" for column in given.keys() - _COLUMNS)
        notes["strength unknown, taken as 1"] += "chosen" in given and given.get("strength") is None
    warn_of(notes, path.name, logger)
    return rows


def _split(given: Mapping[str, Any], name: str, place: Place) -> str | None:
    split = given.get("split")
    if split is None:
        named = _SPLIT_IN_NAME.match(name)
        return _SPLITS[named[1].lower()] if named else None
    if not isinstance(split, str) or split not in _SPLITS:
        raise DataError(place.at("split"), f"{shown(split)} is not a split", f"Use one of {', '.join(_SPLITS)}")
    return _SPLITS[split]


def _from_responses(given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    if "response_1" not in given:
        problem = f"neither response_1 nor chosen among the columns {', '.join(given)}"
        raise DataError(place, problem, "Name them prompt, response_1, response_2 or prompt, chosen, rejected")
    needed = {column: value_of(given, column, place) for column in ("prompt", "response_1", "response_2")}
    optional = {column: given.get(column) for column in FEATURES.keys() - needed.keys() - {"pair_id", "split"}}
    return needed | optional | {"prompt": _messages(needed["prompt"])}


def _from_chosen(given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """A pair whose position carries no information: the order of its responses depends on the texts alone."""
    before, chosen = _conversation(given["chosen"], place.at("chosen"))
    before_rejected, rejected = _conversation(value_of(given, "rejected", place), place.at("rejected"))
    if before != before_rejected:
        raise DataError(place.at("rejected"), "does not begin like chosen", "Let the two differ in the last turn only")
    prompt = check_messages(_messages(given.get("prompt") or before), place.at("prompt"))
    if before and before != prompt:
        raise DataError(place.at("prompt"), "is not what chosen begins with", "Leave the column out, or correct it")
    first, second = sorted((chosen, rejected))
    if int(pair_id(prompt, first, second), 16) % 2:
        first, second = second, first
    strength = 1 if given.get("strength") is None else check_preference(given["strength"], place.at("strength"))
    if strength < 1:
        raise DataError(place.at("strength"), f"{strength} is not a strength", "Use 1, 2 or 3; leave ties out")
    preference = strength if chosen == second else -strength
    return {"prompt": prompt, "response_1": first, "response_2": second, "preference": preference}


def _messages(prompt: Any) -> Any:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _conversation(value: Any, place: Place) -> tuple[list[Any], str]:
    """The messages before the last, and the text of the last, which is the assistant's."""
    if isinstance(value, str):
        return [], check_text(value, place)
    if not isinstance(value, list) or not value or not isinstance(value[-1], Mapping):
        raise DataError(place, f"{shown(value)} is neither a text nor messages", "Give the response")
    if value[-1].get("role") != "assistant":
        raise DataError(place, "the last message is not the assistant's", "End with the response")
    return value[:-1], check_text(value[-1].get("content"), place)


def _fill_splits(rows: list[dict[str, Any]]) -> None:
    """Give a tenth of the prompts, by hash, to validation: of the rows without a split, or of all if none is there."""
    open_rows = rows if all(row["split"] != "validation" for row in rows) else [r for r in rows if r["split"] is None]
    for row in open_rows:
        digest = hashlib.sha256(prompt_key(row["prompt"]).encode()).hexdigest()
        row["split"] = "validation" if int(digest, 16) % 10 == 0 else "train"
    if open_rows:
        drawn = sum(row["split"] == "validation" for row in open_rows)
        logger.warning("no validation named for %d pairs: %d drawn by a hash of the prompt", len(open_rows), drawn)


def _fill_preferences(rows: list[dict[str, Any]], folder: Path) -> str:
    """Where the preferences come from; derives them where no row has one."""
    if any(row["preference"] is not None for row in rows):
        return ANNOTATED
    for row in rows:
        first, second = ((row[f"ratings_{side}"] or {}).get("helpfulness") for side in (1, 2))
        if first is not None and second is not None:
            row["preference"] = preference_from_ratings(first, second)
    if all(row["preference"] is None for row in rows):
        problem = "no row has a preference, or the helpfulness of both responses"
        raise DataError(Place(str(folder)), problem, "Add preference (-3..3), or ratings_1 and ratings_2")
    return DERIVED
