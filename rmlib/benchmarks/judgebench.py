"""JudgeBench (Tan et al., arXiv 2410.12784): which of two responses to a hard question is objectively correct.

The candidates are A and B as published. A reward model decides A>B where A gets strictly more reward, else B>A, so a
tie goes to B: it is credited where B is right. The Score is the mean over all pairs of a split, not over categories.
Each split has the pairs of one response model and its own official result; there is no joint one.

Judges see each pair in both orders, and are credited by another rule (`rmlib.benchmarks.judging`).

Files: pair_id, source, question, response_model, response_A, response_B, label. Parts: gpt (350 pairs, the usual
headline number) and claude (270), by whose responses are compared. The official claude part has a pair of equal ones.
"""

import logging
from collections.abc import Mapping
from typing import Any

from rmlib.benchmarks.benchmark import TEXTS, Benchmark, Rewards
from rmlib.benchmarks.items import Given, Row, field, make_item, responses_of
from rmlib.benchmarks.report import Subset
from rmlib.records.errors import DataError, Place, shown
from rmlib.records.hashing import text_key

logger = logging.getLogger(__name__)

HUB_NAME = "ScalerLab/JudgeBench"
MODELS = {"gpt": "gpt-4o-2024-05-13", "claude": "claude-3-5-sonnet-20240620"}
CATEGORIES = {
    "mmlu-pro": "knowledge", "livebench-reasoning": "reasoning", "livebench-math": "math", "livecodebench": "coding",
}  # fmt: skip
LABELS = ("A>B", "B>A")
_COUNTS = {"gpt": (154, 98, 56, 42), "claude": (154, 51, 34, 31)}
SUBSETS = {
    f"{split}/{category}": Subset(category, n)
    for split, counts in _COUNTS.items()
    for category, n in zip(CATEGORIES.values(), counts, strict=True)
}


def _credit(rewards: Rewards, item: Mapping[str, Any]) -> dict[str, Any]:
    a, b = rewards
    return {"credit": float((a > b) == item["correct"][0]), "tie": a == b}


def _split_of(row: Row, place: Place, folder: str) -> str:
    model = field(row, "response_model", place)
    found = [split for split, name in MODELS.items() if name == model]
    if not found:
        raise DataError(place.at("response_model"), f"unknown {shown(model)}", f"It is {' or '.join(MODELS.values())}")
    return found[0]


def _item(row: Row, place: Place) -> Given:
    number, source, question, label, a, b = (
        field(row, name, place) for name in ("pair_id", "source", "question", "label", "response_A", "response_B")
    )
    if label not in LABELS:
        raise DataError(place.at("label"), f"{shown(label)} is not a label", f"Use {' or '.join(LABELS)}")
    found = [category for prefix, category in CATEGORIES.items() if str(source).startswith(prefix)]
    if not found:
        raise DataError(place.at("source"), f"unknown source {shown(source)}", f"They begin {', '.join(CATEGORIES)}")
    responses, correct = {"response_A": [a], "response_B": [b]}, [label == "A>B", label == "B>A"]
    return Given(f"{row['part']}/{number}", f"{row['part']}/{found[0]}", question, responses, correct)


def official_scores(row: Row, place: Place) -> Row:
    """A row of the official output file of a reward model, as `scoring.read_scores` has rows.

    Pairs are scored in the published order and, unless one game was asked for, turned round; where both are there, and
    have other winners, the published order counts and a warning says so. Raises DataError where a judge gave no scores.
    """
    item = make_item(_item({**row, "part": _split_of(row, place, "")}, place), place, keep_degenerate=True)
    found = {"item_id": item["item_id"], TEXTS: text_key(item["prompt"], *responses_of(item))}
    try:
        games = field(row, "judgments", place)
        given = [None if game is None else game["judgment"].get("scores") for game in games]
        orders = [two[::turn] for two, turn in zip(given, (1, -1), strict=False) if two is not None]
        winners = {a > b for a, b in orders}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(
            place.at("judgments"), f"not of the official layout ({error!r})", "Fetch the file again"
        ) from error
    if not any(games):
        return found | {"scores": None, "reason": "no judgment in the official file"}
    if not orders:
        problem = f"the judge {shown(row.get('judge_name'))} gave no scores"
        raise DataError(place.at("judgments"), problem, "Only files of reward models hold rewards")
    if len(winners) > 1:
        logger.warning("%s: %s has other winners in the two orders; the first counts", place, item["item_id"])
    return found | {"scores": orders[0]}


BENCHMARK = Benchmark(
    "judgebench", SUBSETS, _credit, _item, about=__doc__, hub={split: (HUB_NAME, split) for split in MODELS},
    part_of=_split_of, keeps_degenerate=True, micro=True, one_split=True,
)  # fmt: skip
