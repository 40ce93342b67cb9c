"""Append-only records: one JSON line for each run or score, with what was asked and where it came from.

Figures read nothing else but these and the published numbers. `append` writes, `read` and `published` give tables.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmlib.records import files, paths
from rmlib.records.provenance import MACHINE_PATH, provenance

if TYPE_CHECKING:  # pandas is two thirds of the time that this module takes; who only writes records does without
    import pandas as pd

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
FIELDS = (
    "schema_version", "record_id", "time", "kind", "asked", "outcome", "seed", "seconds", "commit", "command",
    "packages", "hardware",
)  # fmt: skip


class RecordError(ValueError):
    """A record that cannot be written or read: says which key, or which file and line, and what to do."""


def append(
    path: Path | str,
    *,
    kind: str,
    asked: Mapping[str, Any],
    outcome: Mapping[str, Any],
    seconds: float | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """Add one record to a JSON-lines file and return it, as it is in the file.

    Args:
        path: the file; it and its folder are made where they are missing.
        kind: what sort of result this is, e.g. "run" or "rewardbench".
        asked: settings, arm, source with its content hash. With kind and seed it names the record.
        outcome: what came out. Values of both: numbers, texts, None, numpy, dataclasses, lists and mappings of these.
        seconds: wall time.
    Raises:
        RecordError: NaN or infinity, a path as typed (give a content hash or "$DATA"), a value JSON does not have.

    Where the latest record of the same name has an equal outcome, that one is returned and nothing is written, so a
    notebook run again for nothing leaves the file as it is. Writers may share a file: each holds a lock, and a record
    is one write that is on the disk when this returns.
    """
    name = _name(kind, asked, seed)
    record = {
        "schema_version": SCHEMA_VERSION,
        "record_id": _record_id(name),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "outcome": _plain(outcome, "outcome"),
        "seconds": None if seconds is None else round(_plain(float(seconds), "seconds"), 3),
    }
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(path) as file:
        files.repair_end(file, path)
        known = _known(file.read(), path, record["record_id"])
        if known is not None and known["outcome"] == record["outcome"]:
            return known
        complete = name | record | provenance()
        written = {key: complete[key] for key in FIELDS}
        files.append_lines(file, [_json(written)])
    return written


def find(path: Path | str, *, kind: str, asked: Mapping[str, Any], seed: int | None = None) -> dict[str, Any] | None:
    """The latest record with this name (see `append`), as it is in the file; None where there is none, or no file."""
    path = Path(path)
    if not path.is_file():
        return None
    return _known(path.read_bytes(), path, _record_id(_name(kind, asked, seed)))


def read(path: Path | str, kind: str | None = None) -> pd.DataFrame:
    """One row for the latest record of each `record_id`, in the order in which these first appeared.

    Columns: the fields of the record, with asked, outcome, packages and hardware spread one level deep ("asked.arm",
    "outcome.accuracy"; deeper mappings stay dictionaries), and `file`, the name of the file. `path` may be a folder:
    then all its .jsonl files are read. `kind` keeps the records of one kind.

    Raises FileNotFoundError where there is nothing to read, RecordError for a malformed line (naming file and line) or
    where no record is of this kind. A last line cut short by a killed writer is left out, with a warning.
    """
    import pandas as pd  # late: see above

    path = Path(path)
    sources = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not sources or not all(file.is_file() for file in sources):
        raise FileNotFoundError(f"no records at {path}: run the notebook that writes them, or `make reproduce`")
    lines = [(file.name, *found) for file in sources for found in _last_lines(file.read_bytes(), file).values()]
    kinds = sorted({known for _, known, _ in lines})
    if kind is not None and kind not in kinds:
        raise RecordError(f"{path.name}: no record of kind {kind!r}, only {kinds}: run the notebook that writes them")
    chosen = [_spread(json.loads(line)) | {"file": name} for name, known, line in lines if kind in (None, known)]
    if not chosen:
        return pd.DataFrame(columns=[*FIELDS, "file"])
    return pd.DataFrame(chosen).astype({"seed": "Int64"})


def _spread(record: dict[str, Any]) -> dict[str, Any]:
    """The record with its mappings spread one level deep, after all else; pandas' json_normalize copies every list."""
    flat = {key: value for key, value in record.items() if not isinstance(value, dict)}
    nested = ((key, value) for key, value in record.items() if isinstance(value, dict))
    return flat | {f"{key}.{name}": item for key, value in nested for name, item in value.items()}


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as records hold it: one mapping a row, missing values None. Give an index a name and reset it first."""
    filled = table.astype(object).where(table.notna(), None)
    return [{str(column): value for column, value in row.items()} for row in filled.to_dict(orient="records")]


def published(name: str) -> pd.DataFrame:
    """A table of published numbers, data/published/<name>.csv, each row with the source of its numbers.

    The columns `citation` and `source_kind` ("primary" or "secondary") are looked up from `source` in sources.csv;
    data/published/README.md explains files, units and tags. Raises ValueError for an unknown name.
    """
    import pandas as pd  # late: see above

    folder = paths.data_dir() / "published"
    known = sorted(file.stem for file in folder.glob("*.csv"))
    if name not in known:
        raise ValueError(f"no published table {name!r}; known: {', '.join(known)}")
    table, sources = pd.read_csv(folder / f"{name}.csv"), pd.read_csv(folder / "sources.csv")
    return table if name == "sources" else table.merge(sources, on="source", how="left", validate="many_to_one")


def _name(kind: str, asked: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
    return {"kind": kind, "asked": _plain(asked, "asked"), "seed": _plain(seed, "seed")}


def _record_id(name: dict[str, Any]) -> str:
    return hashlib.sha256(_json(name, sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any, where: str) -> Any:
    """The value as JSON has it; RecordError names the key of what JSON, or a record, does not have."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise RecordError(f"{where}: keys must be texts, got {list(value)[:5]}: convert them with str()")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{where} is {value}: record None and the reason, or mend what gave it")
    if isinstance(value, Path) or (isinstance(value, str) and MACHINE_PATH.match(value)):
        raise RecordError(f"{where} is a path, {str(value)!r}: record a content hash, a name or a variable like $DATA")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise RecordError(f"{where} is a {type(value).__name__}, which JSON does not have: convert it first")


def _json(value: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(value, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)


def _known(content: bytes, path: Path, record_id: str) -> dict[str, Any] | None:
    _, line = _last_lines(content, path).get(record_id, (None, None))
    return None if line is None else json.loads(line)


@lru_cache(maxsize=16)  # a ladder that is finished asks for each of its records in a file that stays as it is
def _last_lines(content: bytes, path: Path) -> dict[str, tuple[str, bytes]]:
    """Kind and line of the latest record of each id."""
    lines = content.split(b"\n")
    if lines[-1] and files.is_cut_short(lines[-1]):
        logger.warning("%s: left out line %d, cut short by a killed writer", path, len(lines))
        lines.pop()
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line]
    records = ((_parsed(line, f"{path}, line {number}"), line) for number, line in numbered)
    return {record["record_id"]: (record["kind"], line) for record, line in records}


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise RecordError(f"{place}: not JSON ({error}); restore the file from git or remove the line") from error
    if not isinstance(record, dict) or "schema_version" not in record:
        raise RecordError(f"{place}: not a record; restore the file from git or remove the line")
    if record["schema_version"] != SCHEMA_VERSION:
        version = record["schema_version"]
        raise RecordError(f"{place}: schema version {version}, this code reads {SCHEMA_VERSION}; use the matching code")
    missing = [key for key in FIELDS if key not in record]
    if missing:
        raise RecordError(f"{place}: the record lacks {', '.join(missing)}; restore the file from git")
    return record
