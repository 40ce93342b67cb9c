"""Rows from JSON-lines (plain or gzip) and parquet files, with errors that name file and row."""

import gzip
import hashlib
import io
import json
import logging
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as parquet

from rmlib.pairs.schema import DataError, Place, shown

JSONL_ENDINGS = (".jsonl.gz", ".jsonl")


def folder_of(source: str | Path) -> Path:
    """The folder, if there is one of this name; else DataError."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise DataError(Place(str(source)), "there is no such folder", "Name a folder that exists")
    return folder


def contents(folder: Path) -> str:
    """What lies in a folder, as an error message lists it."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (", ".join(names[:20]) or "nothing") + more


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Every row of the file as a dictionary, one at a time. Raises DataError naming file and row.

    A compressed file is checked whole before its first row is given out, so that damage is never taken for a bad row.
    """
    if path.suffix == ".parquet":
        yield from _read_parquet(path)
        return
    lines = io.BytesIO(read_bytes(path).rstrip())
    if not lines.getbuffer():
        raise DataError(Place(path.name), "the file is empty", "Fetch or write it again")
    for number, line in enumerate(lines, start=1):
        yield _parsed(line, Place(path.name, number))


def first_columns(path: Path) -> set[str]:
    """The columns of the first row of a JSON-lines file, empty where it cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            row = json.loads(file.readline())
    except (OSError, EOFError, zlib.error, ValueError, RecursionError):
        return set()
    return set(row) if isinstance(row, dict) else set()


def value_of(row: Mapping[str, Any], field: str, place: Place) -> Any:
    """The value of a field that every row must have; else DataError."""
    if field not in row:
        problem = f"the field is missing; the row has {shown(', '.join(row)) if row else 'none'}"
        raise DataError(place.at(field), problem, "Add it, or fetch the file again")
    return row[field]


def warn_of(notes: Counter[str], origin: str, logger: logging.Logger) -> None:
    """One warning for each kind of note with the number of rows; kinds beyond the ten most frequent are summed up."""
    found = +notes
    for note, count in found.most_common(10):
        logger.warning("%s: %s (%d rows)", origin, note, count)
    if len(found) > 10:
        logger.warning("%s: %d more kinds of such notes (%d in all)", origin, len(found) - 10, found.total())


def sha256(path: Path) -> str:
    """The SHA-256 (hex) of a file's bytes. Raises DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def read_bytes(path: Path) -> bytes:
    """The content of a file, of a .gz file the unpacked one. Raises DataError."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(Place(path.name), f"broken or truncated gzip ({error})", "Fetch the file again") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(Place(path.name), f"cannot be read ({error.strerror})", "Check the file and its permissions")


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    try:
        return parquet.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(Place(path.name), f"not a readable parquet file ({error})", "Write it again") from error


def parse_json(content: bytes) -> Any:
    """JSON as the standard has it. Raises ValueError also for NaN and for a key that occurs twice in one object."""
    return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_object)


def _parsed(line: bytes, place: Place) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise DataError(place, f"not a line of JSON ({error})", "Fetch the file again or correct the line") from error
    if not isinstance(row, dict):
        raise DataError(place, f"{shown(row)} is not a JSON object", "Write one object a line")
    return row


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) < len(members):
        repeated = Counter(name for name, _ in members).most_common(1)[0][0]
        raise ValueError(f"the key {shown(repeated)} occurs twice in one object")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON: write null where there is no value")
