"""Anyone's own pairs: every file of rows in a folder, each row in one of the layouts of `sources.layouts`.

What is held out is said by a column `split`, the name of a file or of a folder in it (`sources.split_names`).
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib.pairs import make_pairs
from rmlib.pairs.schema import FEATURES, check_row
from rmlib.records import paths
from rmlib.records.errors import DataError, Place, shown
from rmlib.records.files import TABLE_ENDINGS, contents, ending_of, rows_or_errors, warn_of, written_whole
from rmlib.records.hashing import prompt_key
from rmlib.sources.conversations import Row, has_transcript, in_messages
from rmlib.sources.labels import preferences_of
from rmlib.sources.layouts import COLUMNS, from_text, recognise, refuse_part_of_prompt, unclear
from rmlib.sources.options import Options
from rmlib.sources.split_names import is_split_name, split_named

logger = logging.getLogger(__name__)

ORIGIN = "the folder of pairs"
ENOUGH_BAD = 20  # rows of a file in no layout, after which it is refused unread


@dataclass
class Reading:
    """What was read: rows of the table with their places, and rows that cannot be read with the reason."""

    rows: list[tuple[Place, Row]] = field(default_factory=list)
    bad: list[tuple[DataError, Any]] = field(default_factory=list)
    preferences: str = ""
    notes: dict[str, Counter[str]] = field(default_factory=dict)  # of what is noted, the rows of each file
    has_transcripts: bool = False  # noted where the option `transcripts` is given
    objects: list[str] = field(default_factory=list)  # files of one object that is no row


def load(source: str | Path, **options: Any) -> Dataset:
    """The pairs of every file in the folder and below, or of one file; options: see `Options`.

    Where no row is named as held out, a tenth of the prompts becomes it; this is logged, like all that is left out,
    not used, or derived. Raises DataError naming file, row and field.
    """
    return table(read(source, Options(**options)))


def table(reading: Reading) -> Dataset:
    """The rows as a table of pairs (see `make_pairs`)."""
    rows = [{name: row[name] for name in FEATURES if name in row} for _, row in reading.rows]
    return make_pairs(rows, origin=ORIGIN, preferences=reading.preferences, places=[place for place, _ in reading.rows])


def read(source: str | Path, options: Options) -> Reading:
    """The rows of the table with their places, and with `id` and `subset` where files give them."""
    path = Path(source).expanduser()
    path = path if path.name else path.absolute()  # of "." the log is to say a name
    reading = Reading()
    names: set[str] = set()
    for file, origin in _files(path):
        names |= {origin} | _read_file(file, origin, options, reading)
    _log_notes(reading.notes, path.name)
    _check_known(names, options)
    if options.transcripts is not None and not reading.has_transcripts:
        problem = "no text looks like a transcript (Human: ... Assistant: ...)"
        raise DataError(Place("transcripts"), problem, "Leave the option out")
    if options.bad_rows == "refuse" or not reading.rows:
        _report(reading.bad, path, options)
    if not reading.rows:
        problem = f"no rows: {'; '.join(reading.objects) or 'no file holds one that can be read'}"
        raise DataError(Place(str(path)), problem, "Give a list or lines of rows, or name another folder")
    _fill_splits(reading.rows, options.split)
    labelled, reading.preferences = preferences_of(
        reading.rows, labels=options.labels, scale=options.rating_scale, unlabelled=options.unlabelled, bad=reading.bad
    )
    reading.rows = []
    for place, row in labelled:
        try:
            checked = check_row({name: row[name] for name in FEATURES if name in row}, place)
            reading.rows.append((place, checked | {name: row.get(name) for name in ("id", "subset")}))
        except DataError as error:
            reading.bad.append((error, row))
    _report(reading.bad, path, options)
    return reading


def _check_known(names: set[str], options: Options) -> None:
    """DataError for a column, a file or a split that an option names and no file has."""
    by_name = options.split if isinstance(options.split, Mapping) else {}
    for option, given in {"columns": options.columns or {}, "split": by_name}.items():
        if unknown := sorted(set(given) - names):
            problem = f"{shown(unknown[0])} is in none of the files"
            raise DataError(Place(option), problem, f"Name one of {', '.join(sorted(names)[:20])}")


def label_of(source: str | Path) -> str:
    """What a record calls the content of the files that are read."""
    digest = hashlib.sha256()
    for file, _ in _files(Path(source).expanduser(), quiet=True):
        digest.update(file.read_bytes())
    return f"folder sha256:{digest.hexdigest()[:12]}"


# --- files ------------------------------------------------------------------------------------------------------------


def _files(path: Path, *, quiet: bool = False) -> list[tuple[Path, str]]:
    """The files of rows in a folder and below, each with its name below the folder; what is not used is logged."""
    if path.is_file():
        return [(path, path.name)]
    if not path.is_dir():
        raise DataError(Place(str(path)), "there is no such file or folder", "Name one that exists")
    found = sorted(file for file in path.rglob("*") if file.is_file())
    names = {file: file.relative_to(path).as_posix() for file in found}
    used = [file for file in found if ending_of(file) and not _hidden(names[file])]
    if not used:
        problem = f"no {', '.join(TABLE_ENDINGS)} file; the folder holds {contents(path)}"
        raise DataError(Place(str(path)), problem, "Add a file of pairs, or name another folder")
    unused = sorted({_hidden(name) or name for file, name in names.items() if file not in used})
    if unused and not quiet:
        more = f" and {len(unused) - 20} more" if len(unused) > 20 else ""
        logger.warning("%s: not used: %s%s", path.name, ", ".join(unused[:20]), more)
    return [(file, names[file]) for file in used]


def _hidden(name: str) -> str:
    """The hidden file or folder that a name below the folder lies in; empty where there is none."""
    parts = name.split("/")
    return next(("/".join(parts[: n + 1]) for n, part in enumerate(parts) if part.startswith(".")), "")


def _read_file(file: Path, origin: str, options: Options, reading: Reading) -> set[str]:
    """Add the rows of a file to what was read, one a pair, and return its columns and the values of `split`."""
    names = set[str]()
    unused: dict[str, set[Any] | None] = {}  # columns with the names of splits that they hold; None: other values too
    bad: list[tuple[DataError, Any]] = []
    first: Row | None = None  # one that fits no layout, as long as none does
    n_rows, fits, of_file, columns = 0, False, _split_of_file(origin, options.split), options.columns or {}
    for place, given in rows_or_errors(file, origin):
        n_rows += 1
        if isinstance(given, DataError):
            bad.append((given, given.given))
            continue
        names |= given.keys()
        try:
            row = _named(given, place, columns)
            row = from_text(row) if ending_of(file) in (".csv", ".tsv") else row
            layout = recognise(row, place)
            fits = True
            refuse_part_of_prompt(row, layout, place)
            shared = {name: row.get(name) for name in ("id", "subset")}
            shared["split"] = _split(row, of_file, place, options.split)
            reading.has_transcripts |= options.transcripts is not None and has_transcript(row)
            pairs = layout.read(in_messages(row, place, options.transcripts), place)
        except DataError as error:
            bad.append((error, given))
            first = first or given
            if not fits and n_rows >= ENOUGH_BAD and options.bad_rows == "refuse":
                break
            continue
        for column in row.keys() - layout.columns:
            if column in COLUMNS and row[column] is None:  # of another layout, in a table of several
                continue
            reading.notes.setdefault(f"column {column or repr(column)} not used", Counter())[origin] += 1
            _add_split_name(row[column], column, unused)
        _add_split_name(row.get("subset"), "subset", unused)
        for note in {pair["note"] for pair in pairs if "note" in pair}:
            reading.notes.setdefault(note, Counter())[origin] += 1
        names |= {str(row["split"])} if row.get("split") is not None else set()
        reading.rows += [(place, pair | shared) for pair in pairs]
    if not fits and first is not None and n_rows == 1 and ending_of(file) == ".json":
        logger.warning("%s: not used, for it is one object and no table of pairs", origin)
        reading.objects.append(f"{origin} is one object ({', '.join(map(str, first))})")
        return names
    if not fits:
        raise bad[0][0] if first is None else DataError(Place(origin), *unclear(_named(first, Place(origin), columns)))
    if "split" not in names:
        _refuse_other_split(unused, origin)
    reading.bad += bad
    return names


def _log_notes(notes: Mapping[str, Counter[str]], folder: str) -> None:
    """Warn once of each thing noted, with the number of its rows."""
    for note, rows in sorted(notes.items()):
        where = next(iter(rows)) if len(rows) == 1 else f"{folder}, {len(rows)} files"
        logger.warning("%s: %s (%d rows)", where, note, rows.total())


def _named(given: Row, place: Place, columns: Mapping[str, str | None]) -> Row:
    """The row under our names: lower case, with _ for blanks and dashes, and renamed as the user says."""
    row: Row = {}
    for theirs, value in given.items():
        ours = columns.get(theirs, str(theirs).strip().lower().replace(" ", "_").replace("-", "_"))
        if ours is None:
            continue
        if ours in row:
            raise DataError(place.at(ours), f"two columns mean {ours}", "Rename one, or set it to None in columns")
        row[ours] = None if isinstance(value, float) and value != value else value
    return row


# --- splits -----------------------------------------------------------------------------------------------------------


def _split_of_file(origin: str, said: str | Mapping[str, str] | None) -> str | None:
    """The split that a file's name says, or the user says of it; None where nobody does."""
    named, given = split_named(origin, Place(origin)), said.get(origin) if isinstance(said, Mapping) else None
    if named == "validation" and given == "train":
        raise DataError(Place(origin), "its name says that it is held out", "Rename the file to train on it")
    return given or named


def _split(row: Row, of_file: str | None, place: Place, said: str | Mapping[str, str] | None) -> str | None:
    """The split of a row by its column, else by its file; None where nothing names it."""
    given = row.get("split")
    if given is None:
        return of_file
    named = split_named(str(given), place.at("split"))
    of_row = named or (said.get(str(given)) if isinstance(said, Mapping) else None)
    if of_row is None:
        remedy = f"Use train or validation, or say what it is: split={{{str(given)!r}: 'train'}}"
        raise DataError(place.at("split"), f"{shown(given)} is not a split", remedy)
    if of_file == "validation" and of_row == "train":
        raise DataError(
            place.at("split"), "train, in a file that is named as held out", "Rename the file, or correct it"
        )
    return of_row


def _add_split_name(value: Any, column: str, unused: dict[str, set[Any] | None]) -> None:
    """Note a value of a column that is not used, as long as its values are all names of splits, or yes and no."""
    held = unused.setdefault(column, set())
    if value is not None and held is not None:
        is_flag = is_split_name(column.removeprefix("is_")) and isinstance(value, bool | int) and value in (0, 1)
        unused[column] = held | {value} if is_flag or (isinstance(value, str) and is_split_name(value)) else None


def _refuse_other_split(unused: Mapping[str, set[Any] | None], origin: str) -> None:
    """DataError for a column that is no split, but holds names of splits, or is named as one and holds yes and no."""
    for column, held in unused.items():
        place, listed = Place(origin, None, column), ", ".join(sorted(map(str, held or ())))
        if any(not isinstance(value, str) for value in held or ()):
            remedy = f"Write a column split (train, validation), or say columns={{'{column}': None}}"
            raise DataError(place, f"holds {listed}, and may say what is held out", remedy)
        if "validation" in {split_named(value, place) for value in held or ()}:
            problem = f"holds {listed}, as a split would"
            raise DataError(place, problem, f"Say what it is: columns={{'{column}': 'split'}}, or {{'{column}': None}}")


def _fill_splits(rows: list[tuple[Place, Row]], said: str | Mapping[str, str] | None) -> None:
    """Give rows without a split the one that the user says; where no row has one, draw a tenth of the prompts by hash.

    So also where all rows are named as training alone. Raises DataError for rows without a split beside others.
    """
    unnamed = [(place, row) for place, row in rows if row["split"] is None]
    if isinstance(said, str):
        for _, row in unnamed:
            row["split"] = said
    elif 0 < len(unnamed) < len(rows):
        files = Counter(place.origin for place, _ in unnamed)
        listed = ", ".join(f"{name} ({count} rows)" for name, count in files.most_common(10))
        problem = f"no name says whether it is for training, beside others whose names do: {listed}"
        raise DataError(unnamed[0][0], problem, "Say it: split='train' or 'validation', or by file, {name: split}")
    if any(row["split"] == "validation" for _, row in rows):
        return
    for _, row in rows:
        digest = hashlib.sha256(prompt_key(row["prompt"]).encode()).hexdigest()
        row["split"] = "validation" if int(digest, 16) % 10 == 0 else "train"
    drawn = sum(row["split"] == "validation" for _, row in rows)
    logger.warning("no validation named for %d pairs: %d drawn by a hash of the prompt", len(rows), drawn)


# --- bad rows ---------------------------------------------------------------------------------------------------------


def _report(bad: list[tuple[DataError, Any]], path: Path, options: Options) -> None:
    """Refuse the bad rows, all at once, or leave them out: counted by reason, the first listed, all in a file."""
    if not bad:
        return
    listed = "; ".join(f"{error.place}: {error.problem}" for error, _ in bad[:10])
    if options.bad_rows == "refuse":
        if len(bad) == 1:
            raise bad[0][0]
        problem = f"{len(bad)} rows cannot be read: {listed}" + "; ..." * (len(bad) > 10)
        raise DataError(bad[0][0].place, problem, f"{bad[0][0].remedy}; or leave them out with bad_rows='leave_out'")
    lines = [
        {"file": error.place.origin, "row": error.place.row, "field": error.place.field, "problem": error.problem}
        | {"given": given}
        for error, given in bad
    ]
    content = "".join(json.dumps(line, default=str) + "\n" for line in lines)
    file = paths.runs_dir() / "bad_rows" / f"{path.stem}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.jsonl"
    with written_whole(file) as temporary:
        temporary.write_text(content)
    reasons = Counter(
        f"left out, because {f'field {error.place.field}' if error.place.field else 'the row'}: {error.problem}"
        for error, _ in bad
    )
    warn_of(reasons, path.name, logger)
    logger.warning("%s: left out %d rows, all written to %s: %s", path.name, len(bad), file, listed)
