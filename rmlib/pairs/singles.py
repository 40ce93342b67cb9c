"""Rated single responses: those that share a prompt become pairs, the others stay rows without a second response.

Such a row has ratings of its one response and no preference. Regression learns from it; whatever needs two responses
leaves it out, and counts it (`views.left_out`). A table of their own would need a loader, splits, views and names of
runs of its own, and a folder of pairs and single responses would be two tables to train one model on.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rmlib.pairs.merging import turned
from rmlib.records.hashing import prompt_key

Row = dict[str, Any]

MOST = 8  # responses of one prompt that are compared each with each: 28 pairs; beyond, they stay single


def is_single(row: Row) -> bool:
    """Whether the row has one response."""
    return row["response_2"] is None


def joined(
    rows: Sequence[Row], prefer: Callable[[float, float], int], notes: Counter[str]
) -> tuple[list[Row], list[Row]]:
    """Pairs of single responses (rows without `pair_id`) that share a prompt and a split, and those that stay single.

    Every two responses of a prompt are compared, where there are no more than MOST; `prefer` makes the preference of
    two helpfulness ratings, which is null where one of them is missing. What was done is counted in `notes`.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["split"], prompt_key(row["prompt"])), []).append(row)
    made, single = [], []
    for group in groups.values():
        if not 1 < len(group) <= MOST:
            single += group
            notes[f"single responses of prompts with over {MOST}, not compared"] += len(group) if len(group) > 1 else 0
            continue
        notes["single responses that share a prompt, made pairs"] += len(group)
        for one, two in itertools.combinations(group, 2):
            pair = _pair(one, turned(two), prefer)
            made.append(pair)
            notes["ties among the pairs so made"] += pair["preference"] == 0
    notes["single responses, which regression alone learns from"] += len(single)
    return made, single


def _pair(one: Row, two: Row, prefer: Callable[[float, float], int]) -> Row:
    """The row of the first response, filled with the second, which stands on the second side of its row."""
    pair = {column: value if value is not None else two[column] for column, value in one.items()} | {"pair_id": None}
    pair["annotations"] = [*(one["annotations"] or []), *(two["annotations"] or [])] or None
    first, second = (pair[f"ratings_{side}"]["helpfulness"] for side in "12")
    return pair | {"preference": None if first is None or second is None else prefer(first, second)}
