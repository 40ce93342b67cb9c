"""What all benchmarks share: the table of items, the files and hub sets it is read from, and what can be scored."""

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, Features, List, Value

from rmlib.pairs.messages import (
    EXTRAS,
    MESSAGES,
    Response,
    check_messages,
    check_response,
    extras_of,
    features_of,
    merged,
    text_of,
)  # fmt: skip
from rmlib.records.errors import DataError, Place, check_string, shown
from rmlib.records.files import ending_of, placed_rows

logger = logging.getLogger(__name__)

FEATURES = Features(
    {
        "item_id": Value("string"),
        "subset": Value("string"),
        "prompt": MESSAGES,
        "candidates": List(Value("string")),
        "correct": List(Value("bool")),  # of each candidate: is it one of the chosen ones; none is where people tied
        "pairs": List(List(Value("int64"))),  # [better, worse]: the candidates compared, where not all are; else null
        "benchmark": Value("string"),  # the last two are equal in all rows: they stay with the items that a
        "source": Value("string"),  # selection, a filter or a file keeps, which Dataset.info does not
    }
)
ENDINGS = (".json", ".jsonl", ".parquet")  # of official files, each also with .gz

# Of each candidate what else its message carries, as JSON text: a column of tables in which one carries more.
MORE = {EXTRAS: List(Value("string"))}

Row = Mapping[str, Any]
Rows = Iterable[tuple[Place, Row]]


class Given(NamedTuple):
    """What a row of a benchmark's files says of its item; the candidates are the responses, field after field.

    `correct` is by default True for all responses of the first field.
    """

    item_id: str
    subset: str
    prompt: Any
    responses: Mapping[str, Sequence[Any]]
    correct: Sequence[bool] | None = None
    pairs: Sequence[Sequence[int]] | None = None


# --- where rows come from ---------------------------------------------------------------------------------------------


def data_files(source: Path) -> list[Path]:
    """The file itself, or the files of ENDINGS (.gz or not) anywhere in the folder, sorted.

    Raises FileNotFoundError where there are none.
    """
    if not source.exists():
        raise FileNotFoundError(f"no file or folder {source}: name one, or use source='simulated' or 'hub'")
    found = [source] if source.is_file() else sorted(file for file in source.rglob("*") if file.is_file())
    usable = [file for file in found if ending_of(file) in ENDINGS]
    if not usable:
        raise FileNotFoundError(f"{source} holds no {', '.join(ENDINGS)} file: name the folder of the downloaded data")
    return usable


def file_rows(source: str | Path, *, prefer: str = "") -> tuple[Rows, str]:
    """The rows of a file or folder with their places (files below the folder), and the label that names their content.

    Where a folder has files named `prefer`*, only these are read. Raises FileNotFoundError; DataError on reading.
    """
    source = Path(source)
    files = data_files(source)
    preferred = [file for file in files if prefer and file.name.startswith(prefer)]
    if preferred and len(preferred) < len(files):
        logger.info("reading the files named %s*, %d of %d", prefer, len(preferred), len(files))
    files, digest = preferred or files, hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return _rows_of(files, source), f"folder sha256:{digest.hexdigest()[:12]}"


def hub_rows(name: str, split: str, revision: str = "main") -> tuple[Rows, str]:
    """The rows of a split on the hub (downloads), and the label that names the commit the revision stands for."""
    from datasets import load_dataset
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(name, revision=revision).sha
    rows = load_dataset(name, split=split, revision=commit)
    return ((Place(name, number), row) for number, row in enumerate(rows, start=1)), f"{name}@{commit}"


def _rows_of(files: Sequence[Path], source: Path) -> Iterator[tuple[Place, Row]]:
    for file in files:
        yield from placed_rows(file, file.name if file == source else file.relative_to(source).as_posix())


# --- from rows to items -----------------------------------------------------------------------------------------------


def field(row: Row, name: str, place: Place) -> Any:
    """The value of a field that every row must have; DataError where it is absent or null."""
    if row.get(name) is None:
        raise DataError(place.at(name), "the field is missing", f"This row has {', '.join(row) or 'no fields'}")
    return row[name]


def texts(row: Row, name: str, place: Place, *, n: int | None = None) -> list[Any]:
    """The list of responses in a field, `n` of them if given (else at least one); DataError where it is not that."""
    found = field(row, name, place)
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) == 0 or len(found) != (n or len(found)):
        wanted = "at least one response" if n is None else f"{n} responses"
        raise DataError(place.at(name), f"{shown(found)} is not a list of {wanted}", "Give the official candidates")
    return list(found)


def make_item(given: Given, place: Place, *, keep_degenerate: bool) -> dict[str, Any]:
    """One row of the table but for `benchmark` and `source`; a prompt that is a plain text becomes one user turn.

    A response is a text or a message of the assistant, alone or as a list of one. Raises DataError for a prompt or a
    response that is none, and, unless keep_degenerate, for an empty response.
    """
    responses = [
        _candidate(response, place.at(name), keep_degenerate)
        for name, found in given.responses.items()
        for response in found
    ]
    prompt, candidates = given.prompt, [text_of(response) for response in responses]
    extras = [extras_of(response) for response in responses]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    n_first = len(next(iter(given.responses.values())))
    return {
        "item_id": given.item_id,
        "subset": given.subset,
        "prompt": check_messages(prompt, place.at("prompt")),
        "candidates": candidates,
        EXTRAS: extras if any(extras) else None,
        "correct": [k < n_first for k in range(len(candidates))] if given.correct is None else list(given.correct),
        "pairs": None if given.pairs is None else [list(pair) for pair in given.pairs],
    }


def _candidate(given: Any, place: Place, keep_degenerate: bool) -> Response:
    if isinstance(given, list) and len(given) == 1:
        given = given[0]
    if keep_degenerate and isinstance(given, str):
        return check_string(given, place)
    return check_response(given, place)


def responses_of(item: Mapping[str, Any]) -> list[Response]:
    """The candidates of an item as a model reads them, with what else their messages carry."""
    return merged(item["candidates"], item.get(EXTRAS) or [None] * len(item["candidates"]))


def table_of(
    items: list[dict[str, Any]], place: Place, *, benchmark: str, label: str, subsets: Collection[str],
    partial: bool, keep_degenerate: bool,
) -> Dataset:  # fmt: skip
    """The items as a table, checked as a whole.

    Raises DataError for no item, an id that occurs twice, a missing subset (unless partial), and, unless
    keep_degenerate, for a chosen response that equals one it is compared with. Those kept are logged.
    """
    twice = [name for name, count in Counter(item["item_id"] for item in items).items() if count > 1]
    if twice:
        raise DataError(place, f"ids occur twice: {some(twice)}", "Give each item of a subset its own id")
    equal = [item["item_id"] for item in items if _has_equal(item)]
    if equal and not keep_degenerate:
        raise DataError(place, f"chosen equals rejected: {some(equal)}", "Remove them, or set keep_degenerate=True")
    if equal:
        logger.warning("%s: kept %d items whose responses are equal: %s", place, len(equal), some(equal))
    empty = [item["item_id"] for item in items if any(isinstance(r, str) and not r.strip() for r in responses_of(item))]
    if empty:
        logger.warning("%s: kept %d items with an empty response: %s", place, len(empty), some(empty))
    present = {item["subset"] for item in items}
    missing = sorted(set(subsets) - present)
    if missing and not (partial and items):
        raise DataError(place, f"no item of {', '.join(missing)}", "Add them, or set partial=True")
    shared = {"benchmark": benchmark, "source": label}
    features = features_of(FEATURES, items)
    if any(item[EXTRAS] for item in items):
        features = Features(features | MORE)
    rows = [{name: (item | shared)[name] for name in features} for item in items]
    return Dataset.from_list(rows, features=features)


def check_known(value: Any, known: Collection[str], what: str, place: Place) -> str:
    """The value, if it is one of the known names of subsets (or whatever `what` says); else DataError."""
    if not isinstance(value, str) or value not in known:
        raise DataError(place, f"unknown {what} {value!r}", f"The {what}s are {', '.join(known)}")
    return value


def some(names: Sequence[str]) -> str:
    """At most ten of the names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def raise_for(problems: Mapping[str, Iterable[str]], remedy: str) -> None:
    """ValueError for the first problem that any ids have, with their number and five of them."""
    for problem, found in problems.items():
        if names := sorted(found):
            raise ValueError(f"{problem} for {len(names)} ids, e.g. {names[:5]}: {remedy}")


def compared(item: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The pairs of candidates that the item compares, better one first: those listed, or each chosen with each other.

    An item without a list of `correct` has the chosen one first.
    """
    if item.get("pairs") is not None:
        return [(better, worse) for better, worse in item["pairs"]]
    correct = item.get("correct") or [k == 0 for k in range(len(item["candidates"]))]
    chosen = [k for k, right in enumerate(correct) if right]
    return [(better, worse) for better in chosen for worse, right in enumerate(correct) if not right]


def rows_of(items: Dataset, *columns: str) -> list[dict[str, Any]]:
    """The items as dictionaries of these columns, as far as they are there, without the others being read."""
    return items.select_columns([name for name in columns if name in items.features]).to_list()


def _has_equal(item: Mapping[str, Any]) -> bool:
    responses = responses_of(item)
    return any(responses[better] == responses[worse] for better, worse in compared(item))
