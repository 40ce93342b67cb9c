"""JudgeBench (Tan et al., arXiv 2410.12784): which of two responses to a hard question is objectively correct.

The candidates are A and B as published. A reward model decides A>B where A gets strictly more reward, else B>A, so a
tie goes to B: it is credited where B is right. The Score is the mean over all pairs of a split, not over categories.
Each split has the pairs of one response model and its own official result; there is no joint one.

Judges see each pair in both orders, and are credited by another rule (`rmlib.benchmarks.judging`).
"""

from collections.abc import Mapping
from functools import partial as bound
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib.benchmarks.benchmark import Benchmark, Rewards, Subset
from rmlib.benchmarks.items import field, file_rows, hub_rows, make_item
from rmlib.records.errors import DataError, Place, shown

HUB_NAME = "ScalerLab/JudgeBench"
MODELS = {"gpt": "gpt-4o-2024-05-13", "claude": "claude-3-5-sonnet-20240620"}
CATEGORIES = {
    "mmlu-pro": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math", "livecodebench": "coding",
}  # fmt: skip
LABELS = ("A>B", "B>A")
_COUNTS = {"gpt": (154, 98, 56, 42), "claude": (154, 51, 34, 31)}


def _credit(rewards: Rewards, item: Mapping[str, Any]) -> dict[str, Any]:
    a, b = rewards
    return {"credit": float((a > b) == item["correct"][0]), "tie": a == b}


SUBSETS = {
    f"{split}/{category}": Subset(category, n)
    for split, counts in _COUNTS.items()
    for category, n in zip(CATEGORIES.values(), counts, strict=True)
}
BENCHMARK = Benchmark("judgebench", SUBSETS, _credit, micro=True, one_split=True)
credits = BENCHMARK.credits
summarise = BENCHMARK.summarise


def load(
    source: str | Path = "hub",
    *,
    split: str = "gpt",
    revision: str = "main",
    partial: bool = False,
    keep_degenerate: bool = True,
) -> Dataset:
    """The pairs of one split, candidates [A, B], in the order of the source.

    Args:
        source: "hub" (ScalerLab/JudgeBench; downloads), or a file or folder in its layout: pair_id, source, question,
            response_model, response_A, response_B, label. Pairs of the other split are left alone.
        split: whose responses are compared: "gpt" (350 pairs, the usual headline number) or "claude" (270).
        revision: branch, tag or commit for "hub"; the commit it stands for is kept in the column `source`.
        partial: accept a source that lacks categories.
        keep_degenerate: keep pairs of equal responses, as the official claude split has one; they are logged.
    Raises:
        FileNotFoundError: nothing to read. ValueError: an unknown split. DataError: a malformed row, a label other than
            A>B and B>A, an unknown source or response model, a missing category, an id that occurs twice.
    """
    if split not in MODELS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(MODELS)}")
    rows, label = hub_rows(HUB_NAME, split, revision) if source == "hub" else file_rows(source)
    mine = ((place, row) for place, row in rows if _split_of(row, place) == split)
    item_of = bound(_item, split)
    wanted = [name for name in SUBSETS if name.startswith(f"{split}/")]
    options: dict[str, Any] = {"source": source, "partial": partial, "keep_degenerate": keep_degenerate}
    return BENCHMARK.table(mine, label, item_of, subsets=wanted, **options)


def _split_of(row: Mapping[str, Any], place: Place) -> str:
    model = field(row, "response_model", place)
    found = [split for split, name in MODELS.items() if name == model]
    if not found:
        raise DataError(place.at("response_model"), f"unknown {shown(model)}", f"It is {' or '.join(MODELS.values())}")
    return found[0]


def _item(split: str, row: Mapping[str, Any], place: Place, keep_degenerate: bool) -> dict[str, Any]:
    number, source, question, label, a, b = (
        field(row, name, place) for name in ("pair_id", "source", "question", "label", "response_A", "response_B")
    )
    if label not in LABELS:
        raise DataError(place.at("label"), f"{shown(label)} is not a label", f"Use {' or '.join(LABELS)}")
    found = [category for prefix, category in CATEGORIES.items() if str(source).startswith(prefix)]
    if not found:
        raise DataError(place.at("source"), f"unknown source {shown(source)}", f"They begin {', '.join(CATEGORIES)}")
    return make_item(
        f"{split}/{number}",
        f"{split}/{found[0]}",
        question,
        {"response_A": [a], "response_B": [b]},
        place,
        keep_degenerate=keep_degenerate,
        correct=[label == "A>B", label == "B>A"],
    )
