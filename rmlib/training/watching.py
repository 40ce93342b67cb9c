"""Benchmarks while a model trains: a sample that keeps every subset, and scores as lines of the run's log."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from jaxtyping import Float

from rmlib import benchmarks
from rmlib.benchmarks.scoring import refuse_unwritable
from rmlib.models import Prompt, RewardModel, Scorer
from rmlib.models.features import FromFeatures
from rmlib.training.settings import TrainSettings

logger = logging.getLogger(__name__)

Watched = Mapping[str, Dataset]
DRAWS = 20  # the log holds no intervals, so few are drawn


def sample(items: Dataset, n: int, seed: int = 0) -> Dataset:
    """About `n` items, in their order: each subset by its share of the items, and one at least.

    What belongs together stays together: a question of RewardBench 2 that is asked twice (`ref:7`, `tied:7`) counts as
    one draw of two items, so that a few items more than `n` may come. The numbers are logged. Raises ValueError where
    `n` is smaller than the number of subsets.
    """
    ids, subsets = np.array(items["item_id"][:]), np.array(items["subset"][:])
    names, sizes = np.unique(subsets, return_counts=True)
    if n < len(names):
        raise ValueError(f"a sample of {n} cannot hold all {len(names)} subsets: ask for {len(names)} at least")
    if n >= len(items):
        return items
    wanted = _shares(sizes, n)
    kept = np.zeros(len(items), dtype=bool)
    for number, name in enumerate(names):
        rows = np.flatnonzero(subsets == name)
        unit = np.array([item_id.rpartition(":")[2] for item_id in ids[rows]])
        units = np.random.default_rng([seed, number]).permutation(np.unique(unit))
        sizes_of_units = np.array([(unit == one).sum() for one in units])
        enough = np.searchsorted(sizes_of_units.cumsum(), wanted[number]) + 1
        kept[rows] = np.isin(unit, units[:enough])
    logger.info("sampled %d of %d items, from each of %d subsets", kept.sum(), len(items), len(names))
    return items.select(np.flatnonzero(kept))


def _shares(sizes: np.ndarray, n: int) -> np.ndarray:
    """`n` split by size, one at least and no more than there are; the largest remainders are rounded up."""
    exact = np.maximum(1.0, sizes * n / sizes.sum())
    wanted = np.minimum(np.floor(exact).astype(int), sizes)
    order = np.argsort(wanted - exact, kind="stable")
    for index in order[: max(0, n - wanted.sum())]:
        wanted[index] += wanted[index] < sizes[index]
    while wanted.sum() > n:  # subsets of less than one item were given one: the largest give it up
        wanted[np.argmax(wanted)] -= 1
    return wanted


@dataclass(frozen=True)
class _FirstOutput:
    """The first attribute of a model, as `selection_accuracy` has it; from kept features where the body is frozen."""

    model: RewardModel
    settings: TrainSettings

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Float[np.ndarray, "response"]:
        model: Scorer = FromFeatures(self.model) if self.settings.trainable == "head" else self.model
        bf16 = self.settings.precision == "bf16"
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=bf16):
            rewards = model.score(prompts, responses)
        return rewards if rewards.ndim == 1 else rewards[:, 0]


def log_row(model: RewardModel, watched: Watched, settings: TrainSettings) -> dict[str, float]:
    """Section scores 0..1 of each benchmark under the names that the log has, e.g. `rewardbench/Chat Hard`.

    Sections that lack subsets are left out. Draws nothing from torch's generators, and leaves the model in its mode.
    """
    row: dict[str, float] = {}
    for name, items in watched.items():
        scores = benchmarks.score(_FirstOutput(model, settings), items, progress=False, keep=False)
        row |= {f"{name}/{section}": float(value) for section, value in _sections(items, scores).items()}
    return row


def _sections(items: Dataset, scores: Mapping[str, list[float]]) -> pd.Series:
    """The sections that have all their subsets and, where none lacks any, the Score: of a sample by intent."""
    strict, loose = (
        benchmarks.summarise(items, scores, draws=DRAWS, partial=partial).sections["estimate"]
        for partial in (False, True)
    )
    made_of_sections = {"Score", *benchmarks.BENCHMARKS[benchmarks.name_of(items)].extra}
    return strict if set(loose.index) - set(strict.index) - made_of_sections else loose


def check(watched: Watched, model: RewardModel) -> None:
    """Raise ValueError, before any training, for a benchmark of which no section could be logged.

    ModelError, with the item's id, for a conversation that the model's chat template refuses.
    """
    for name, items in watched.items():
        if model.kind != "encoder":  # which has no template; what a decoder's tokenizer read is remembered
            refuse_unwritable(model, items, all_items=True)
        zeros = {row["item_id"]: [0.0] * len(row["candidates"]) for row in items}
        if _sections(items, zeros).empty:
            raise ValueError(f"{name}: no section has all its subsets, so none can be logged; give all subsets")


def load(asked: Mapping[str, Mapping[str, Any]]) -> dict[str, Dataset]:
    """Benchmarks by name from JSON: {"rewardbench": {"source": "simulated", "sample": 200, "seed": 0}}.

    `sample` may be left out; other keys are options of the benchmark's `load`, as is a missing `source`.
    """
    watched = {}
    for name, options in asked.items():
        own = dict(options)
        n, seed = own.pop("sample", None), own.pop("seed", 0)
        items = benchmarks.load(name, **own)
        watched[name] = items if n is None else sample(items, n, seed)
    return watched
