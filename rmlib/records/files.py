"""Files: rows read with errors that name file and row, lines appended under a lock, content written whole or not."""

import contextlib
import csv
import fcntl
import gzip
import hashlib
import io
import itertools
import json
import logging
import os
import shutil
import uuid
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as parquet

from rmlib.records.arrow_values import arrow_values
from rmlib.records.errors import DataError, Place, check_text, shown

logger = logging.getLogger(__name__)

JSONL_ENDINGS = (".jsonl.gz", ".jsonl")
TABLE_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")  # each also with .gz, in any case
_BOM = b"\xef\xbb\xbf"


# --- reading ----------------------------------------------------------------------------------------------------------


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


def ending_of(path: Path) -> str | None:
    """Which of TABLE_ENDINGS the file has, in any case and compressed or not; None for any other file."""
    name = path.name.lower().removesuffix(".gz")
    return next((ending for ending in TABLE_ENDINGS if name.endswith(ending)), None)


def read_rows(path: Path, origin: str | None = None) -> Iterator[dict[str, Any]]:
    """Every row of the file as a dictionary, one at a time: JSON lines, a JSON array, csv or parquet, by its ending.

    Cells of csv are texts. `origin` is what errors call the file, by default its name. Raises DataError naming file and
    row. A compressed file is checked whole before its first row is given out, so that damage is never taken for a bad
    row.
    """
    for row in _rows(path, origin or path.name):
        if isinstance(row, DataError):
            raise row
        yield row


def placed_rows(path: Path, origin: str | None = None) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Every row of the file with its place, as `read_rows` gives them."""
    rows = enumerate(read_rows(path, origin), start=1)
    return ((Place(origin or path.name, number), row) for number, row in rows)


def rows_or_errors(path: Path, origin: str) -> Iterator[tuple[Place, dict[str, Any] | DataError]]:
    """Every row of the file with its place, or the error of a row that is none; raises for a file that is none."""
    return ((Place(origin, number), row) for number, row in enumerate(_rows(path, origin), start=1))


def _rows(path: Path, origin: str) -> Iterator[dict[str, Any] | DataError]:
    ending = ending_of(path)
    if ending == ".parquet":
        yield from _read_parquet(path, origin)
        return
    content = read_bytes(path).removeprefix(_BOM)
    if not content.strip():
        raise DataError(Place(origin), "the file is empty", "Fetch or write it again")
    if ending in (".csv", ".tsv"):
        yield from _read_csv(content, ending, origin)
    elif ending == ".json" or content.lstrip().startswith(b"["):
        yield from _read_json(content.strip(), origin, lines=ending != ".json")
    else:
        yield from _read_lines(content.rstrip(), origin)


def first_rows(path: Path, number: int) -> list[dict[str, Any]]:
    """The first rows of a JSON-lines file, none where it cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            rows = [json.loads(line) for line in itertools.islice(file, number)]
    except (OSError, EOFError, zlib.error, ValueError, RecursionError):
        return []
    return rows if all(isinstance(row, dict) for row in rows) else []


def value_of(row: Mapping[str, Any], field: str, place: Place) -> Any:
    """The value of a field that every row must have; else DataError."""
    if field not in row:
        problem = f"the field is missing; the row has {shown(', '.join(row)) if row else 'none'}"
        raise DataError(place.at(field), problem, "Add it, or fetch the file again")
    return row[field]


def text_of(row: Mapping[str, Any], field: str, place: Place) -> str:
    """The text of a field that every row must have, and not empty; else DataError."""
    return check_text(value_of(row, field, place), place.at(field))


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
        return gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(Place(path.name), f"broken or truncated gzip ({error})", "Fetch the file again") from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(Place(path.name), f"cannot be read ({error.strerror})", "Check the file and its permissions")


def _read_parquet(path: Path, origin: str) -> list[dict[str, Any]]:
    """The rows of one file; names of folders are no columns of it."""
    source = pa.BufferReader(read_bytes(path)) if path.suffix.lower() == ".gz" else path
    try:
        table = parquet.ParquetFile(source).read()
        _check_names(table.column_names, origin)
        if not table.num_rows:
            raise DataError(Place(origin), "the table has no row", "Fetch or write it again")
        names = table.column_names
        columns = [arrow_values(table, name, origin) for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, json.JSONDecodeError) as error:
        raise DataError(Place(origin), f"not a readable parquet file ({error})", "Write it again") from error


def _read_csv(content: bytes, ending: str, origin: str) -> Iterator[dict[str, Any] | DataError]:
    """Rows below a header; the delimiter is a tab in .tsv, else the first of , ; tab that the header has."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(Place(origin), f"not UTF-8 ({error})", "Write the file as UTF-8") from error
    first_line = text.partition("\n")[0]
    delimiter = "\t" if ending == ".tsv" else next((mark for mark in ",;\t" if mark in first_line), ",")
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a text may be longer than the default limit
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    number = 0
    try:
        for number, cells in enumerate(filter(None, lines)):
            if names is None:
                names = _check_names(cells, origin)
                continue
            if len(cells) != len(names):
                problem = f"{len(cells)} cells under {len(names)} names of columns"
                remedy = f"Quote texts that hold {delimiter!r} or a line end"
                yield DataError(Place(origin, number), problem, remedy, cells)
            else:
                yield dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(Place(origin, number + 1), f"not CSV ({error})", "Correct the quotes") from error
    if number == 0:
        raise DataError(Place(origin), "no row below the header", "Fetch or write it again")


def _check_names(names: list[str], origin: str) -> list[str]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(Place(origin, None, twice[0]), "two columns have this name", "Rename or remove one of them")
    return names


def _read_json(content: bytes, origin: str, *, lines: bool) -> Iterator[dict[str, Any] | DataError]:
    """An array of objects, one object, or JSON lines: if they begin as such, or the ending promises `lines`."""
    try:
        value = parse_json(content)
    except (ValueError, RecursionError) as error:
        if lines or (b"\n" in content and content.startswith(b"{")):
            yield from _read_lines(content, origin)
            return
        remedy = "Fetch the file again or correct it"
        raise DataError(Place(origin), f"not a JSON array or JSON lines ({error})", remedy) from error
    rows = value if isinstance(value, list) else [value]
    if not rows:
        raise DataError(Place(origin), "the array is empty", "Fetch or write it again")
    for number, row in enumerate(rows, start=1):
        yield _as_object(row, Place(origin, number))


def _read_lines(content: bytes, origin: str) -> Iterator[dict[str, Any] | DataError]:
    for number, line in enumerate(io.BytesIO(content), start=1):
        place = Place(origin, number)
        try:
            yield _as_object(parse_json(line), place)
        except (ValueError, RecursionError) as error:
            problem, given = f"not a line of JSON ({error})", line.decode(errors="replace")
            yield DataError(place, problem, "Fetch the file again or correct the line", given)


def _as_object(row: Any, place: Place) -> dict[str, Any] | DataError:
    return row if isinstance(row, dict) else DataError(place, f"{shown(row)} is not a JSON object", "Give one", row)


def parse_json(content: bytes) -> Any:
    """JSON as the standard has it. Raises ValueError also for NaN and for a key that occurs twice in one object."""
    return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_object)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(members)
    if len(made) < len(members):
        repeated = Counter(name for name, _ in members).most_common(1)[0][0]
        raise ValueError(f"the key {shown(repeated)} occurs twice in one object")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON: write null where there is no value")


# --- writing ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write a file or a folder under; it takes the name at the end, on the disk.

    Another process sees what was there before or all of the new, never half of it; a folder that somebody else has
    made meanwhile stays. Where the block raises, nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        for file in sorted(temporary.rglob("*")) if temporary.is_dir() else [temporary]:
            if file.is_file():
                sync(file)
        try:
            temporary.replace(path)
        except OSError:
            if not path.is_dir():  # else another process was first
                raise
        sync(path.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)


def write_json(file: Path, content: Any) -> None:
    """Write JSON whole or not at all (`written_whole`)."""
    with written_whole(file) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[FileIO]:
    """The file, made where it is missing, open for reading from its start and appending, with nobody else writing."""
    with path.open("a+b", buffering=0) as file:  # every write goes to the end, in one call
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or the process dies
        file.seek(0)
        yield file


def append_lines(file: FileIO, lines: Sequence[str]) -> None:
    """Append lines in one write that is on the disk when this returns. Raises OSError where the disk is full."""
    content = "".join(line + "\n" for line in lines).encode()
    if file.write(content) != len(content):
        raise OSError(f"the disk took only a part of {len(content)} bytes; make room and run again")
    os.fsync(file.fileno())


def repair_end(file: FileIO, path: Path) -> None:
    """Take away what a killed writer left of its line, so that the next one starts on a line of its own."""
    content = file.read()
    whole, _, rest = content.rpartition(b"\n")
    if rest and is_cut_short(rest):
        logger.warning("%s: removed line %d, cut short by a killed writer", path, content.count(b"\n") + 1)
        file.truncate(len(content) - len(rest))
    elif rest:
        file.write(b"\n")
    file.seek(0)


def is_cut_short(line: bytes) -> bool:
    """Whether a last line is no JSON, as a killed writer leaves it."""
    try:
        json.loads(line)
    except ValueError:
        return True
    return False
