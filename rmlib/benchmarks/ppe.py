"""PPE, preference proxy evaluations (Frick et al., arXiv 2410.14872): human votes, and answers that can be checked.

Human preference: an arena pair is right when the response that people preferred gets strictly more reward. Pairs that
people called a tie have no right answer; they stay in the table and are counted, without a credit.
Correctness: five sets with 32 samples a prompt. An item's credit is the share of its sampled conflict pairs (one right
sample, one wrong) that the reward orders; a set's accuracy is over all of its pairs, Correctness the plain mean of the
five. The two are separate results: there is no Score over both.

The repository lmarena/PPE was not at hand: that a tie of rewards is wrong and that human ties are left out of accuracy
are our readings. Its further metrics (best-of-K curves, rank correlations over models, separability, Brier) are not
here.

Files: question_id, prompt, response_1, response_2, ..., and winner, or scores and sampled_conflict_pairs; then the path
(with the folder's own name) says which of the six sets, the parts, it is. Users and samplers produce empty and equal
responses, which stay.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rmlib.benchmarks.benchmark import Benchmark, Rewards
from rmlib.benchmarks.items import Given, Row, compared, field
from rmlib.benchmarks.report import Subset
from rmlib.records.errors import DataError, Place, shown

HUMAN = "human-preference"
HUB_NAMES = {
    HUMAN: ("lmarena-ai/PPE-Human-Preference-V1", "test"),
} | {
    name.lower(): (f"lmarena-ai/PPE-{name}-Best-of-K", "train")
    for name in ("MMLU-Pro", "MATH", "GPQA", "IFEval", "MBPP-Plus")
}
SUBSETS = {
    name: Subset("Human Preference", 16038) if name == HUMAN else Subset("Correctness", None, 1) for name in HUB_NAMES
}
TOTALS = {"Correctness": 2555}
HUMAN_TIE, NO_PAIR = "people tied", "no conflict pair"
_WINNERS = {"model_a": [True, False], "model_b": [False, True]}


def _credit(rewards: Rewards, item: Mapping[str, Any]) -> dict[str, Any]:
    differences = np.array([rewards[better] - rewards[worse] for better, worse in compared(item)])
    if len(differences) == 0:
        return {"reason": HUMAN_TIE if item["subset"] == HUMAN else NO_PAIR}
    right, tie = float((differences > 0).mean()), bool((differences == 0).any())
    return {"credit": right, "tie": tie, "weight": len(differences)}


def _with_groups(table: pd.DataFrame) -> pd.DataFrame:
    """A prompt that several models answered is redrawn with all of its items."""
    table["group"] = table["item_id"].str.partition("@")[0]
    return table.assign(weight=table["weight"].fillna(1) if "weight" in table else 1)


def _set_of(row: Row, place: Place, folder: str) -> str:
    if "winner" in row:
        return HUMAN
    path = f"{folder}/{place.origin}".lower().replace("_", "-")
    for part in reversed(path.split("/")):  # a file's own name says more than the folders around it
        found = [name for name in SUBSETS if name != HUMAN and name in part]
        if len(found) == 1:
            return found[0]
    raise DataError(place, "the path says no known set", f"Have one of {', '.join(SUBSETS)} in it")


def _item(row: Row, place: Place) -> Given:
    subset, prompt = row["part"], field(row, "prompt", place)
    number = str(field(row, "question_id", place)) + (f"@{row['model_name']}" if row.get("model_name") else "")
    if subset == HUMAN:
        fields = ["response_1", "response_2"]
        winner = str(field(row, "winner", place))
        if winner not in _WINNERS and not winner.startswith("tie"):
            raise DataError(place.at("winner"), f"{shown(winner)} is no winner", "Use model_a, model_b or tie")
        correct, pairs = _WINNERS.get(winner, [False, False]), None
    else:
        correct = [_is_right(score, place.at("scores")) for score in field(row, "scores", place)]
        fields = [f"response_{k}" for k in range(1, len(correct) + 1)]
        if f"response_{len(correct) + 1}" in row:
            raise DataError(place.at("scores"), f"{len(correct)} scores for more responses", "Give one for each")
        pairs = [_oriented(pair, correct, place) for pair in field(row, "sampled_conflict_pairs", place)]
    responses = {name: [field(row, name, place)] for name in fields}
    return Given(f"{subset}/{number}", subset, prompt, responses, correct, pairs)


def _is_right(score: Any, place: Place) -> bool:
    if score not in (0, 1):
        raise DataError(place, f"{shown(score)} is neither right nor wrong", "Give true or false for each response")
    return bool(score)


def _oriented(pair: Any, correct: Sequence[bool], place: Place) -> tuple[int, int]:
    """The pair with its right sample first; DataError where it names no sample, or is no conflict."""
    place = place.at("sampled_conflict_pairs")
    known = range(len(correct))
    if not isinstance(pair, Sequence) or len(pair) != 2 or not all(k in known for k in pair):
        raise DataError(place, f"{shown(pair)} is no pair of samples", f"Use indices 0..{len(correct) - 1}")
    first, second = pair
    if correct[first] == correct[second]:
        raise DataError(place, f"{shown(pair)}: both samples are {correct[first]}", "Pair a right one with a wrong one")
    return (first, second) if correct[first] else (second, first)


BENCHMARK = Benchmark(
    "ppe", SUBSETS, _credit, _item, about=__doc__, hub=HUB_NAMES, part_of=_set_of, keeps_degenerate=True,
    totals=TOTALS, unscored=frozenset((HUMAN_TIE, NO_PAIR)), finish=_with_groups,
)  # fmt: skip
