"""The pairs of a comparison: to train on, to select on, to test on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from datasets import Dataset, concatenate_datasets

from rmlib import pairs as tables
from rmlib import sources
from rmlib.records.hashing import fingerprint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Pairs to train on, to select on (carved from training) and to test on (read once per arm)."""

    source: sources.SourceInfo
    train: Dataset
    selection: Dataset
    test: Dataset

    @cached_property
    def identity(self) -> str:
        return fingerprint(*(tables.content_hash(part) for part in (self.train, self.selection, self.test)))

    def counts(self) -> pd.DataFrame:
        """Pairs and decided pairs of each split."""
        parts = {"train": self.train, "selection": self.selection, "test": self.test}
        rows = {name: {"pairs": len(part), **tables.left_out(part)} for name, part in parts.items()}
        table = pd.DataFrame(rows).T
        table["decided"] = table["pairs"] - table["ties"] - table["no preference"]
        return table


def load_splits(
    source: str | Path,
    *,
    selection_fraction: float = 0.1,
    max_pairs: int = -1,
    matched: bool = True,
    seed: int = 0,
    **options: Any,
) -> Splits:
    """The splits of a source; `max_pairs` keeps that many training and test pairs each (-1: all).

    `matched` keeps the training pairs that every loss can learn from, decided and rated, so that arms differ in how
    they use the same pairs and in nothing else; with False, regression also learns from ties. `options` go to the
    source (a subset, a fold: see its `load`).

    Raises DataError from the source, and ValueError where a split is empty.
    """
    table, info = sources.load_described(source, **options)
    parts = {}
    for name in ("train", "validation"):
        part = table.select(np.flatnonzero(np.array(table["split"][:]) == name))
        parts[name] = part.select(range(min(max_pairs, len(part)))) if max_pairs >= 0 else part
    train_pairs, selection = tables.carve_selection(parts["train"], selection_fraction, seed)
    if matched:
        train_pairs = only_matched(train_pairs)
    splits = Splits(info, train_pairs, selection, parts["validation"])
    decided = splits.counts()["decided"]
    if (decided == 0).any():
        empty = list(decided.index[decided == 0])
        raise ValueError(f"{splits.source.name}: no decided pair in {empty}; take more pairs (max_pairs, source)")
    return splits


def load_folds(
    source: str | Path, *, n_folds: int, n_selection: int = 2, matched: bool = True, **options: Any
) -> list[Splits]:
    """Each fold of a source as the test of one split; the selection pairs are the next `n_selection` folds, whole.

    For sources whose `load` holds out a `fold` of `n_folds`. A selection split carved from the prompts that are trained
    on would be easier than the test, whose folds share nothing with training. Raises ValueError where no fold is left
    to train on, and as `load_splits`.
    """
    if n_folds < n_selection + 2:
        raise ValueError(f"{n_folds} folds leave none to train on beside 1 to test and {n_selection} to select")
    table, info = sources.load_described(source, fold=0, n_folds=n_folds, **options)
    loaded = [table, *(sources.load(source, fold=fold, n_folds=n_folds, **options) for fold in range(1, n_folds))]
    held_out = [each.select(np.flatnonzero(np.array(each["split"][:]) == "validation")) for each in loaded]
    made = []
    for fold in range(n_folds):
        parts = [held_out[(fold + step) % n_folds] for step in range(n_folds)]
        selection = concatenate_datasets(parts[1 : n_selection + 1])
        train = concatenate_datasets(parts[n_selection + 1 :])
        made.append(Splits(info, only_matched(train) if matched else train, selection, parts[0]))
    return made


def only_matched(pairs: Dataset) -> Dataset:
    """Decided pairs with both responses rated (or decided alone, where a source rates none); others are counted."""
    rated = np.array([bool(a and b) for a, b in zip(pairs["ratings_1"][:], pairs["ratings_2"][:], strict=True)])
    decided = np.array([bool(preference) for preference in pairs["preference"][:]])
    keep = np.flatnonzero(decided & rated if rated.any() else decided)
    logger.info(
        "matched: %d of %d training pairs are decided and rated; the others are left out", len(keep), len(pairs)
    )
    return pairs.select(keep)


@lru_cache(maxsize=16)  # the same table each time, so that what is known of it is known again
def shuffled_labels(pairs: Dataset, seed: int) -> Dataset:
    """The same pairs with each preference turned round with probability 1/2: nothing is left to learn."""
    signs = np.random.default_rng(seed).choice([-1, 1], size=len(pairs))
    flipped = [None if p is None else int(s) * p for s, p in zip(signs, pairs["preference"][:], strict=True)]
    # Its own add_column would first write every row anew, one by one.
    table = pairs.with_format("arrow")[:]
    place = table.schema.get_field_index("preference")
    column = table.schema.field(place)
    return Dataset(table.set_column(place, column, pa.array(flipped, column.type)), info=pairs.info)
