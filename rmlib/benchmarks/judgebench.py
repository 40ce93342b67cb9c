"""JudgeBench (Tan et al., arXiv 2410.12784): which of two responses to a hard question is objectively correct.

The candidates are A and B as published. A reward model decides A>B where A gets strictly more reward, else B>A, so a
tie goes to B: it is credited where B is right. The Score is the mean over all pairs of a split, not over categories.
Each split has the pairs of one response model and its own official result; there is no joint one.

Judges see each pair in both orders. A decision for the right response counts +1, for the wrong one -1, a tie or an
error 0, and the pair is credited where the sum is above 0 (`credits_of_verdicts`).
"""

from collections.abc import Mapping, Sequence
from functools import partial as bound
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.benchmarks.aggregate import Benchmark, Rewards, Scores, Subset, raise_for
from rmlib.benchmarks.items import field, file_rows, hub_rows, make_item
from rmlib.benchmarks.report import Report
from rmlib.schema import DataError, Place, shown

HUB_NAME = "ScalerLab/JudgeBench"
MODELS = {"gpt": "gpt-4o-2024-05-13", "claude": "claude-3-5-sonnet-20240620"}
CATEGORIES = {
    "mmlu-pro": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math", "livecodebench": "coding",
}  # fmt: skip
LABELS = ("A>B", "B>A")
DECISIONS = (*LABELS, "A=B", None)  # a judge's; None: an error, or an answer without a verdict
_COUNTS = {"gpt": (154, 98, 56, 42), "claude": (154, 51, 34, 31)}


def _credit(rewards: Rewards, item: Mapping[str, Any]) -> dict[str, Any]:
    a, b = rewards
    return {"credit": float((a > b) == item["correct"][0]), "tie": a == b}


BENCHMARKS = {
    split: Benchmark(
        "judgebench",
        {f"{split}/{name}": Subset(name, n) for name, n in zip(CATEGORIES.values(), counts, strict=True)},
        _credit,
        micro=True,
    )
    for split, counts in _COUNTS.items()
}


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
    options: dict[str, Any] = {"source": source, "partial": partial, "keep_degenerate": keep_degenerate}
    return BENCHMARKS[split].table(mine, label, item_of, **options)


def credits(items: Dataset, scores: Scores, *, skipped: Mapping[str, str] | None = None) -> pd.DataFrame:
    """See `aggregate.Benchmark.credits`. Raises ValueError also for items of both splits."""
    return _of(items).credits(items, scores, skipped=skipped)


def summarise(items: Dataset, scores: Scores | pd.DataFrame, **options: Any) -> Report:
    """See `aggregate.Benchmark.summarise`. Raises ValueError also for items of both splits."""
    return _of(items).summarise(items, scores, **options)


def credits_of_verdicts(items: Dataset, verdicts: Mapping[str, Sequence[str | None]]) -> pd.DataFrame:
    """The credits of a judge, from its decisions for each pair as it answered: in the order given, and exchanged.

    Args:
        verdicts: item_id to two DECISIONS, the second about B and A in that order; or to one, from a single game.
    Returns:
        Columns as `credits`, and errors (verdicts that are None) and consistent (both favour the same response, or
        neither any; NaN after a single game). `tie`: decisions that sum to 0.
    Raises:
        ValueError: verdicts that are missing, left over, none or more than two, or not DECISIONS.
    """
    _of(items)
    names = items["item_id"][:]
    wrong = [name for name, given in verdicts.items() if len(given) not in (1, 2) or not set(given) <= set(DECISIONS)]
    problems = {
        "no verdicts": set(names) - verdicts.keys(),
        "no item": verdicts.keys() - set(names),
        "not one or two of A>B, B>A, A=B, None": wrong,
    }
    raise_for(problems, "pass the verdicts on these very items")
    rows = []
    for name, subset, correct in zip(names, items["subset"][:], items["correct"][:], strict=True):
        favours = [_points(decision, turned) for decision, turned in zip(verdicts[name], (False, True), strict=False)]
        points = sum(favours) * (1 if correct[0] else -1)
        row = {"item_id": name, "subset": subset, "credit": float(points > 0), "tie": points == 0, "reason": None}
        errors = sum(decision is None for decision in verdicts[name])
        rows.append(row | {"errors": errors, "consistent": favours[0] == favours[1] if len(favours) == 2 else np.nan})
    return pd.DataFrame(rows)


def _points(decision: str | None, turned: bool) -> int:
    """+1 for A, -1 for B, as they stand in the item."""
    return {"A>B": 1, "B>A": -1}.get(decision or "", 0) * (-1 if turned else 1)


def _of(items: Dataset) -> Benchmark:
    splits = sorted({name.partition("/")[0] for name in items.unique("subset")})
    if len(splits) != 1 or splits[0] not in BENCHMARKS:
        raise ValueError(f"items of the splits {splits or 'none'}: official results are of one; pass gpt or claude")
    return BENCHMARKS[splits[0]]


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
