"""Scores that some other program made, from a file, for the items that they belong to; and ours, written the same way.

One row an item: `item_id` (or `id`) and its rewards in the item's order, as a list in `scores` or as `score_1`,
`score_2`, …; in a .jsonl (also .gz), .csv or .parquet file. A .json file is one object {item_id: [rewards]}. An item
that nobody could score has null for `scores`, and says why in `reason`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib.benchmarks.scoring import Scores
from rmlib.records.errors import DataError, Place, check_number, shown
from rmlib.records.files import parse_json, read_bytes, read_rows

ANY_NUMBER = (-math.inf, math.inf)


def read_scores(file: str | Path, items: Dataset) -> Scores:
    """The scores in a file, one reward for each candidate of each item.

    Raises DataError naming file and row for what cannot be read, an id that is unknown or occurs twice, another number
    of rewards than the item has candidates, a reward that is no finite number, and for items without a row.
    """
    file = Path(file)
    sizes = dict(zip(items["item_id"][:], map(len, items["candidates"][:]), strict=True))
    scores = Scores()
    for place, row in _rows(file):
        name = _item_id(row, place, sizes)
        if name in scores or name in scores.skipped:
            raise DataError(place, f"the id {shown(name)} occurs twice", "Keep one row for each item")
        given = _given(row, place)
        if given is None:
            scores.skipped[name] = str(row["reason"])
        else:
            scores[name] = _checked(given, sizes[name], place)
    missing = [name for name in sizes if name not in scores and name not in scores.skipped]
    if missing:
        problem = f"no row for {len(missing)} of {len(sizes)} items, e.g. {missing[:5]}"
        raise DataError(Place(file.name), problem, "Score them too, or give each a row with a null and a reason")
    return scores


def write_scores(scores: Scores, file: str | Path) -> Path:
    """The scores as JSON lines that `read_scores` reads, written under another name first."""
    file = Path(file)
    rows: list[dict[str, Any]] = [{"item_id": name, "scores": rewards} for name, rewards in scores.items()]
    rows += [{"item_id": name, "scores": None, "reason": reason} for name, reason in scores.skipped.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(file)
    return file


def _rows(file: Path) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    if not file.is_file():
        raise DataError(Place(file.name), "there is no such file", "Name a .jsonl, .json, .csv or .parquet file")
    if file.suffix == ".json":
        yield from _of_object(file)
    elif file.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(read_bytes(file).decode("utf-8-sig")), restkey="", strict=True)
        yield from ((Place(file.name, number), row) for number, row in enumerate(rows, start=1))
    elif file.name.endswith((".jsonl", ".jsonl.gz", ".parquet")):
        yield from ((Place(file.name, number), row) for number, row in enumerate(read_rows(file), start=1))
    else:
        raise DataError(Place(file.name), "not a kind of file that is read", "Give .jsonl, .json, .csv or .parquet")


def _of_object(file: Path) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    place = Place(file.name)
    try:
        found = parse_json(read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise DataError(place, f"not a JSON file ({error})", "Give an object {item_id: [rewards]}") from error
    if not isinstance(found, dict):
        raise DataError(place, f"{shown(found)} is not an object", "Give {item_id: [rewards]}")
    for number, (name, given) in enumerate(found.items(), start=1):
        yield Place(file.name, number), {"item_id": name, "scores": given}


def _item_id(row: Mapping[str, Any], place: Place, known: Mapping[str, int]) -> str:
    name = row.get("item_id", row.get("id"))
    if name is None:
        raise DataError(place, f"no item_id; the row has {', '.join(map(str, row))}", "Add the column item_id")
    if str(name) not in known:
        problem = f"{shown(str(name))} is no item of this benchmark"
        raise DataError(place, problem, "Use the ids that `load` gives, or load the items that were scored")
    return str(name)


def _given(row: Mapping[str, Any], place: Place) -> Sequence[Any] | None:
    """The rewards as they stand in a row, None for an item that is skipped with a reason."""
    given = row.get("scores")
    if given in (None, "") and row.get("reason"):
        return None
    if isinstance(given, str):
        try:
            given = parse_json(given.encode())
        except (ValueError, RecursionError) as error:
            problem = f"{shown(given)} is not a list ({error})"
            raise DataError(place.at("scores"), problem, "Write [1.5, 0.2]") from error
    if given is None:
        columns = sorted((name for name in row if str(name).startswith("score_")), key=_number)
        given = [row[name] for name in columns if row[name] not in (None, "")]
    if not isinstance(given, Sequence) or not given:
        raise DataError(place, f"{shown(given)} are no rewards", "Give a list `scores`, or `score_1`, `score_2`, …")
    return given


def _number(column: str) -> float:
    digits = column.removeprefix("score_")
    return int(digits) if digits.isdecimal() else math.inf


def _checked(given: Sequence[Any], size: int, place: Place) -> list[float]:
    if len(given) != size:
        raise DataError(place, f"{len(given)} rewards for {size} candidates", "Give one each, in the item's order")
    return [check_number(_plain(value), ANY_NUMBER, place) for value in given]


def _plain(value: Any) -> Any:
    """A number that a .csv file holds as a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
