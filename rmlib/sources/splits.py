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

from rmlib.pairs import ATTRIBUTES, carve_selection, content_hash, left_out
from rmlib.pairs.views import has_two, is_decided, only_pairs, preferences, ratings_of
from rmlib.records.hashing import fingerprint
from rmlib.sources.loading import SourceInfo, load, load_described

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Splits:
    """Pairs to train on, to select on (carved from training) and to test on (read once per arm)."""

    source: SourceInfo
    train: Dataset
    selection: Dataset
    test: Dataset

    @cached_property
    def identity(self) -> str:
        return fingerprint(*(content_hash(part) for part in (self.train, self.selection, self.test)))

    def counts(self) -> pd.DataFrame:
        """Pairs and decided pairs of each split, and those left out by reason."""
        parts = {"train": self.train, "selection": self.selection, "test": self.test}
        rows = {
            name: {"pairs": len(part), **left_out(part), "decided": is_decided(part).sum()}
            for name, part in parts.items()
        }
        return pd.DataFrame(rows).T.fillna(0).astype(int)


def load_splits(
    source: str | Path, *, selection_fraction: float = 0.1, max_pairs: int = -1, matched: bool = True, **options: Any
) -> Splits:
    """The splits of a source; `max_pairs` keeps that many training and test pairs each (-1: all).

    `matched` keeps the training pairs that every loss can learn from, decided and rated, so that arms differ in how
    they use the same pairs and in nothing else; with False, regression also learns from ties and single responses.
    Single responses are never tested on. `options` go to the source (a subset, a fold: see its `load`).

    Raises DataError from the source, and ValueError where a split is empty.
    """
    table, info = load_described(source, **options)
    train, test = _split(table, "train"), only_pairs(_split(table, "validation"))
    if max_pairs >= 0:
        train, test = (part.select(range(min(max_pairs, len(part)))) for part in (train, test))
    train, selection = carve_selection(train, selection_fraction, seed=0)
    if matched:
        train = only_matched(train)
    splits = Splits(info, train, selection, test)
    decided = splits.counts()["decided"]
    if (decided == 0).any():
        empty = list(decided.index[decided == 0])
        single = "; single responses alone train regression without splits (training.train)"
        remedy = "take more pairs (max_pairs, source)" + single * (not has_two(table).all())
        raise ValueError(f"{splits.source.name}: no decided pair in {empty}; {remedy}")
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
    table, info = load_described(source, fold=0, n_folds=n_folds, **options)
    loaded = [table, *(load(source, fold=fold, n_folds=n_folds, **options) for fold in range(1, n_folds))]
    held_out = [_split(each, "validation") for each in loaded]
    made = []
    for fold in range(n_folds):
        parts = [held_out[(fold + step) % n_folds] for step in range(n_folds)]
        selection = concatenate_datasets(parts[1 : n_selection + 1])
        train = concatenate_datasets(parts[n_selection + 1 :])
        made.append(Splits(info, only_matched(train) if matched else train, selection, parts[0]))
    return made


def _split(pairs: Dataset, name: str) -> Dataset:
    return pairs.select(np.flatnonzero(np.array(pairs["split"][:]) == name))


def only_matched(pairs: Dataset) -> Dataset:
    """Decided pairs with both responses rated (or decided alone, where a source rates none); others are counted."""
    rated = np.isfinite(ratings_of(pairs, ATTRIBUTES)).any(axis=2).all(axis=1)
    keep = np.flatnonzero(is_decided(pairs) & (rated if rated.any() else True))
    logger.info(
        "matched: %d of %d training pairs are decided and rated; the others are left out", len(keep), len(pairs)
    )
    return pairs.select(keep)


@lru_cache(maxsize=16)  # the same table each time, so that what is known of it is known again
def shuffled_labels(pairs: Dataset, seed: int) -> Dataset:
    """The same pairs with each preference turned round with probability 1/2: nothing is left to learn."""
    signs = np.random.default_rng(seed).choice([-1, 1], size=len(pairs))
    flipped = signs * preferences(pairs)
    # Its own add_column would first write every row anew, one by one.
    table = pairs.with_format("arrow")[:]
    place = table.schema.get_field_index("preference")
    column = table.schema.field(place)
    return Dataset(table.set_column(place, column, pa.array(flipped, column.type, from_pandas=True)), info=pairs.info)
