"""Records of what a comparison's pairs are like, made once for each source: what occurs twice, what is tested on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from rmlib import records
from rmlib.pairs import content_hash, descriptions, overlap
from rmlib.records.hashing import prompt_key
from rmlib.sources.splits import Splits

logger = logging.getLogger(__name__)


def record_overlap(splits: Splits, results: Path, items: Dataset | None = None) -> dict[str, Any]:
    """What occurs twice among the pairs, and what of a benchmark's items lies in them (`overlap.report`), as recorded.

    Computed once for each source and benchmark; a second call takes the record. The summary is logged either way.
    """
    n_pairs = {"train": len(splits.train), "selection": len(splits.selection), "test": len(splits.test)}
    asked = {"source": asdict(splits.source), "n_pairs": n_pairs, "items": None}
    if items is not None:
        asked["items"] = items[0]["source"]
    record = records.find(results, kind="overlap", asked=asked)
    if record is None:
        found = overlap.report(concatenate_datasets([splits.train, splits.selection, splits.test]), items)
        outcome = {"summary": overlap.summary(found), **asdict(found)}
        record = records.append(results, kind="overlap", asked=asked, outcome=outcome)
    across = [row for row in record["outcome"]["duplicates"] if row["scope"] == "train and validation"]
    shared = {row["kind"]: row["exact_ids"] for row in across if row["exact_texts"] and row["kind"] != "response"}
    level = logging.WARNING if "pair" in shared else logging.INFO
    logger.log(level, "%s: %s; first in both splits: %s", splits.source.title, record["outcome"]["summary"], shared)
    return record["outcome"]


def record_test_pairs(splits: Splits, results: Path, groups: Sequence[int] | None = None) -> dict[str, Any]:
    """What the decided test pairs are like, in the order of every record's margins: prompt, strength, differences.

    Prompts are numbered: pairs of one prompt have one number. `groups` numbers what reaches beyond a prompt and is
    redrawn together, such as the fold that held a pair out.
    """
    asked = {"source": asdict(splits.source), "test": content_hash(splits.test)}
    known = records.find(results, kind="test_pairs", asked=asked)
    wanted = "prompt" if groups is None else "group"
    if known is not None and wanted in known["outcome"]:  # earlier records do not number prompts
        return known
    outcome = _test_pairs(splits.test) | ({} if groups is None else {"group": list(groups)})
    return records.append(results, kind="test_pairs", asked=asked, outcome=outcome)


def _test_pairs(pairs: Dataset) -> dict[str, Any]:
    table = descriptions.frame(pairs)
    table["prompt"] = np.unique([prompt_key(prompt) for prompt in pairs["prompt"][:]], return_inverse=True)[1]
    table = table[table["preference"].fillna(0) != 0]
    sign = np.sign(table["preference"].astype(int))
    return {
        "prompt": table["prompt"].tolist(),
        "strength": table["preference"].astype(int).abs().tolist(),
        "helpfulness_difference": [
            None if np.isnan(value) else float(value) for value in table["helpfulness_difference"] * sign
        ],
        "chars_difference": ((table["chars_2"] - table["chars_1"]) * sign).tolist(),
    }
