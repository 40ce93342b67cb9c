"""What all benchmarks share: the table of items, the files it is read from, and what can be scored."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from datasets import Features, List, Value
from jaxtyping import Float

from rmlib.schema import MESSAGES, DataError, Place, check_messages, check_text

FEATURES = Features(
    {
        "item_id": Value("string"),
        "subset": Value("string"),
        "prompt": MESSAGES,
        "candidates": List(Value("string")),
        "benchmark": Value("string"),  # the last two are equal in all rows: they stay with the items that a
        "source": Value("string"),  # selection, a filter or a file keeps, which Dataset.info does not
    }
)
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


@runtime_checkable
class Scorer(Protocol):
    """Anything that rewards responses: a RewardModel, or a ruler of rmlib.statistics."""

    def score(
        self, prompts: Sequence[Sequence[Mapping[str, str]]], responses: Sequence[str]
    ) -> Float[np.ndarray, "batch"]:
        """One finite reward for each response, in the order given."""
        ...


def data_files(source: Path) -> list[Path]:
    """The file itself, or the .jsonl, .jsonl.gz and .parquet files anywhere in the folder, sorted.

    Raises FileNotFoundError where there are none.
    """
    if not source.exists():
        raise FileNotFoundError(f"no file or folder {source}: name one, or use source='simulated' or 'hub'")
    found = [source] if source.is_file() else sorted(file for file in source.rglob("*") if file.is_file())
    usable = [file for file in found if file.name.endswith(SUFFIXES)]
    if not usable:
        raise FileNotFoundError(f"{source} holds no {', '.join(SUFFIXES)} file: name the folder of the downloaded data")
    return usable


def fingerprint(files: Sequence[Path]) -> str:
    """First 12 hex digits of the SHA-256 of the files' bytes: names a folder in records, where a path would not do."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def as_messages(prompt: Any, place: Place) -> list[dict[str, str]]:
    """A prompt as a list of messages; a plain text becomes one user turn. Raises DataError for anything else."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": check_text(prompt, place)}]
    return check_messages(prompt, place)


def field(row: Mapping[str, Any], name: str, place: Place) -> Any:
    """The value of a field that every row must have; DataError where it is absent or null."""
    if row.get(name) is None:
        raise DataError(place.at(name), "the field is missing", f"This row has {', '.join(row) or 'no fields'}")
    return row[name]
