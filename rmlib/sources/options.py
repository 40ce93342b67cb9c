"""How files of pairs are read where they leave it open: one set of options for Python, run files and the shell."""

import argparse
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from rmlib.pairs.schema import SPLITS
from rmlib.records.errors import DataError, Place, shown
from rmlib.sources.labels import UNLABELLED

BAD_ROWS = ("refuse", "leave_out")
ARGUMENTS: dict[str, dict[str, Any]] = {
    "--labels": {"help": "what a column of labels says, e.g. 1/2, a/b/tie or 1..5 (see docs/your_own_pairs.md)"},
    "--rating-scale": {"nargs": 2, "type": float, "metavar": ("WORST", "BEST"), "help": "of ratings that are not 0 4"},
    "--unlabelled": {"choices": UNLABELLED, "help": "what becomes of rows without a label beside others"},
    "--split": {"nargs": "+", "metavar": "NAME", "help": "of unnamed rows: train or validation; or extra.jsonl=train"},
    "--bad-rows": {"choices": BAD_ROWS, "help": "refuse rows that cannot be read, or leave them out and count them"},
    "--transcripts": {"choices": ("yes", "no"), "help": "read 'Human: ... Assistant: ...' as messages, or as one text"},
    "--columns": {"nargs": "+", "metavar": "THEIRS=OURS", "help": "e.g. question=prompt; notes= is not read"},
}


@dataclass(frozen=True)
class Options:
    """How files are read where they leave it open.

    Attributes:
        labels, rating_scale, unlabelled: what labels and ratings mean (see `sources.labels`).
        split: what rows are that no name puts in a split beside rows that one does: "train" or "validation"; or, of
            files and of values in the column `split` by name, {name: "train" or "validation"}.
        bad_rows: "refuse" a row that cannot be read, or "leave_out": count it by reason and write it to a file.
        transcripts: whether texts that look like "Human: ... Assistant: ..." are read as messages.
        columns: {their name: ours}, or None for a column that is not to be read.
    Raises DataError for a value that none of these has.
    """

    labels: str | Mapping[Any, int] | None = None
    rating_scale: tuple[float, float] | None = None
    unlabelled: str = "refuse"
    split: str | Mapping[str, str] | None = None
    bad_rows: str = "refuse"
    transcripts: bool | None = None
    columns: Mapping[str, str | None] | None = None

    def __post_init__(self) -> None:
        named = list(self.split.values()) if isinstance(self.split, Mapping) else [self.split or SPLITS[0]]
        if not all(name in SPLITS for name in named):
            raise DataError(Place("split"), f"{shown(self.split)} names no split", f"Use {' or '.join(SPLITS)}")
        if self.bad_rows not in BAD_ROWS:
            raise DataError(Place("bad_rows"), f"{shown(self.bad_rows)} is unknown", f"Use {' or '.join(BAD_ROWS)}")
        if not isinstance(self.transcripts, bool | None):
            raise DataError(Place("transcripts"), f"{shown(self.transcripts)} is unknown", "Use True or False")
        columns = {} if self.columns is None else self.columns
        if not isinstance(columns, Mapping) or not all(isinstance(ours, str | None) for ours in columns.values()):
            problem = f"{shown(self.columns)} does not say which column is which"
            raise DataError(Place("columns"), problem, "Give {their name: ours}, or None for one that is not read")


def refuse_unknown(given: Mapping[str, Any], known: Collection[str], of: str) -> None:
    """DataError for an option that `of` does not have."""
    for name in given:
        if name not in known:
            raise DataError(Place(name), f"{of} has no such option", f"It has {', '.join(known) or 'none'}")


def typed(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were typed, as `Options` takes them. Raises DataError where they are not typed as help says."""
    given: dict[str, Any] = {name: getattr(arguments, name, None) for name in OPTION_NAMES}
    for name in ("split", "columns"):
        parts = [word.partition("=") for word in given[name] or ()]
        if name == "split" and len(parts) == 1 and not parts[0][1]:
            given[name] = parts[0][0]
            continue
        if bare := [theirs for theirs, equals, _ in parts if not equals]:
            raise DataError(Place(f"--{name}"), f"{shown(bare[0])} says nothing of itself", "Write it as THEIRS=OURS")
        given[name] = {theirs: ours or None for theirs, _, ours in parts} or None
    given["transcripts"] = {"yes": True, "no": False, None: None}[given["transcripts"]]
    return {name: value for name, value in given.items() if value is not None}


OPTION_NAMES = tuple(each.name for each in fields(Options))
