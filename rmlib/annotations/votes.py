"""Pairwise votes: who won between two items, according to a judge. No texts are needed.

A table of votes has one row per vote and the columns judge, question_id, turn, model_a, model_b, winner ("model_a",
"model_b" or "tie"), inconsistent (a tie because the judge's two readings of the pair disagreed), swapped (the source
had the two the other way round) and repeated (the same judge voted on this before). model_a stands before model_b in
alphabetical order, so that all votes on two items can be pooled. From a file of MT-bench's layout (arXiv 2306.05685)
the items are models; from a table of pairs they are the responses to a prompt.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Float

from rmlib.annotations.leaderboards import LEVEL, SCORES, leaderboard, redrawn, strengths
from rmlib.pairs.schema import NEITHER_VALID
from rmlib.records.errors import DataError, Place, check_text, shown
from rmlib.records.files import read_rows, value_of, warn_of
from rmlib.records.hashing import prompt_key
from rmlib.statistics import Interval

__all__ = ["agreement", "from_pairs", "leaderboard", "position_bias", "read", "response_id", "strengths"]

logger = logging.getLogger(__name__)

_WINNERS = {"model_a": "model_a", "model_b": "model_b", "tie": "tie", "tie (inconsistent)": "tie"}
_FLIPPED = {"model_a": "model_b", "model_b": "model_a", "tie": "tie"}
_COMPARED = ["question_id", "turn", "model_a", "model_b"]
_FIELDS = ("judge", "question_id", "turn", "model_a", "model_b", "winner")


def read(path: str | Path) -> pd.DataFrame:
    """The votes of a file (JSON lines, plain or gzip, or parquet) with MT-bench's columns, as a table of votes.

    Turns count from 1. Columns of no use here, and votes that a judge repeats, are counted and logged; no vote is left
    out. Raises DataError naming file, row and field.
    """
    path, rows, unused = Path(path).expanduser(), [], Counter[str]()
    if not path.is_file():
        raise DataError(Place(str(path)), "there is no such file", "Name a file of votes")
    for number, row in enumerate(read_rows(path), start=1):
        rows.append(_checked(row, Place(path.name, number)))
        unused.update(f"column {column} not used" for column in row.keys() - set(_FIELDS))
    warn_of(unused, path.name, logger)
    return _table(rows, path.name)


def from_pairs(pairs: Dataset) -> pd.DataFrame:
    """The annotations of a table of pairs as votes: question_id names the prompt, a model is a `response_id`.

    A vote is the sign of an annotator's preference. "Neither is valid", annotations without a preference and pairs
    without annotations are left out, and counted. An annotator without a name is another one in each annotation.
    """
    rows, left_out = [], Counter[str]()
    columns = ["pair_id", "prompt", "response_1", "response_2", "annotations"]
    for pair in pairs.select_columns(columns).to_list():
        question = hashlib.sha256(prompt_key(pair["prompt"]).encode()).hexdigest()[:16]
        models = [response_id(pair[side]) for side in ("response_1", "response_2")]
        left_out["pairs without annotations"] += not pair["annotations"]
        for index, annotation in enumerate(pair["annotations"] or []):
            preference = annotation["preference"]
            if preference is None or preference == NEITHER_VALID:
                left_out["annotations without a choice"] += 1
                continue
            judge = annotation["annotator"] or f"{pair['pair_id']}/{index}"
            winner = ("tie", "model_b", "model_a")[int(np.sign(preference))]
            rows.append((judge, question, 1, *models, winner))
    if any(left_out.values()):
        logger.warning("votes of the pairs: left out %s", dict(+left_out))
    if not rows:
        raise DataError(Place("the votes of the pairs"), "no annotation has a preference", "Give annotated pairs")
    return _table(rows, "the votes of the pairs")


def response_id(response: str) -> str:
    """The name of a response as an item: first 16 hex digits of the SHA-256 of its text."""
    return hashlib.sha256(response.encode()).hexdigest()[:16]


def agreement(
    votes: pd.DataFrame,
    other: pd.DataFrame | None = None,
    *,
    seed: int,
    draws: int = 1000,
    unit: Sequence[str] = ("question_id",),
) -> pd.DataFrame:
    """How often two votes on the same two items, question and turn are equal, as MT-bench counts it (its Table 5).

    Every two votes of different judges are compared: both of `votes`, or one of `votes` with one of `other`.

    Args:
        unit: columns that name what the percentile bootstrap redraws; votes on one question depend on each other.
    Returns:
        Rows S1 (all votes; an inconsistent one is a tie) and S2 (neither vote is a tie); columns agreement, low, high
        (shares, 95 %), n (compared votes), units, and chance (two judges that draw evenly: 1/3, 1/2).
    Where every compared vote is a tie, S2 has n = 0 and no share. Raises DataError where nothing can be compared.
    """
    within = other is None
    left, right = (table.reset_index(drop=True).reset_index() for table in (votes, votes if other is None else other))
    compared = left.merge(right, on=_COMPARED, suffixes=("", "_other"))
    compared = compared[compared["judge"] != compared["judge_other"]]
    if within:
        compared = compared[compared["index"] < compared["index_other"]]
    if compared.empty:
        problem = "no two judges voted on the same items, question and turn"
        raise DataError(Place("the votes"), problem, "Give votes that overlap")
    decided = (compared["winner"] != "tie") & (compared["winner_other"] != "tie")
    rng = np.random.default_rng(seed)
    setups = {"S1": (compared, 1 / 3), "S2": (compared[decided], 1 / 2)}
    rows = {name: _agreement(part, list(unit), rng, draws) | {"chance": c} for name, (part, c) in setups.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setup")


def position_bias(votes: pd.DataFrame, *, seed: int, draws: int = 1000) -> Interval:
    """How much more than half of the votes the item that the source names first wins (a tie counts half), as a share.

    Of each two items the rates in both orders are averaged, so that their strengths cancel; pairs of items are weighted
    by their votes. The interval redraws questions. Raises DataError where no two items occur in both orders, so that
    order and items cannot be told apart. Whether "first" was also shown first, the source must tell.
    """
    first = votes["winner"].map(SCORES)
    table = votes.assign(score=first.where(~votes["swapped"], 1 - first), n=1)
    both = table.groupby(["model_a", "model_b"])["swapped"].transform("nunique") == 2
    if not both.any():
        problem = "no two items occur in both orders, so the order cannot be told from the items"
        raise DataError(Place("the votes"), problem, "Give votes in which the order changes")
    if not both.all():
        logger.warning("position bias: left out %d votes on items that occur in one order alone", int((~both).sum()))
    sums = table[both].groupby(["question_id", "model_a", "model_b", "swapped"])[["score", "n"]].sum()
    cells = pd.DataFrame(sums.unstack(["model_a", "model_b", "swapped"], fill_value=0)).sort_index(axis=1)
    score, n = cells["score"].to_numpy(float), cells["n"].to_numpy(float)
    drawn = _bias(score, n, np.concatenate(list(redrawn(len(cells), np.random.default_rng(seed), draws, len(cells)))))
    low, high = np.quantile(drawn, LEVEL)
    return Interval(float(_bias(score, n, np.ones((1, len(cells))))[0]), float(low), float(high), int(both.sum()))


def _bias(
    score: Float[np.ndarray, "unit cell"], n: Float[np.ndarray, "unit cell"], counts: Float[np.ndarray, "draw unit"]
) -> Float[np.ndarray, "draw"]:
    """Cells stand in twos: the two orders of the same items. A draw without one of the two has no weight on them."""
    scores, votes = ((counts @ values).reshape(len(counts), -1, 2) for values in (score, n))
    rates = np.divide(scores, votes, out=np.zeros_like(scores), where=votes > 0).mean(axis=2)
    weights = votes.sum(axis=2) * (votes > 0).all(axis=2)
    if not weights.any(axis=1).all():
        raise DataError(Place("the votes"), "some draws have no two items in both orders", "Give more questions")
    return (rates * weights).sum(axis=1) / weights.sum(axis=1) - 0.5


def _checked(row: Mapping[str, Any], place: Place) -> tuple[Any, ...]:
    names = ("judge", "model_a", "model_b")
    judge, model_a, model_b = (check_text(value_of(row, name, place), place.at(name)) for name in names)
    question, turn, winner = (value_of(row, field, place) for field in ("question_id", "turn", "winner"))
    if isinstance(question, bool) or not isinstance(question, int | str) or question == "":
        raise DataError(place.at("question_id"), f"{shown(question)} names no question", "Give a number or a text")
    if isinstance(turn, bool) or not isinstance(turn, int) or turn < 1:
        raise DataError(place.at("turn"), f"{shown(turn)} is not a turn", "Give a whole number from 1")
    if not isinstance(winner, str) or winner not in _WINNERS:
        raise DataError(place.at("winner"), f"{shown(winner)} is not a winner", f"Use one of {', '.join(_WINNERS)}")
    if model_a == model_b:
        raise DataError(place.at("model_b"), f"{shown(model_b)} is compared with itself", "Correct or remove the vote")
    return judge, str(question), turn, model_a, model_b, winner


def _table(rows: Iterable[tuple[Any, ...]], origin: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(_FIELDS))
    table["inconsistent"] = table["winner"] == "tie (inconsistent)"
    table["swapped"] = table["model_a"] > table["model_b"]
    winner = table["winner"].map(_WINNERS)
    table["winner"] = winner.where(~table["swapped"], winner.map(_FLIPPED))
    first, second = table["model_a"], table["model_b"]
    table["model_a"], table["model_b"] = first.where(first < second, second), second.where(first < second, first)
    table["repeated"] = table.duplicated(["judge", *_COMPARED])
    if table["repeated"].any():
        logger.warning("%s: %d votes on what the same judge had voted on", origin, int(table["repeated"].sum()))
    return table


def _agreement(compared: pd.DataFrame, unit: list[str], rng: np.random.Generator, draws: int) -> dict[str, float]:
    if compared.empty:
        return {"agreement": np.nan, "low": np.nan, "high": np.nan, "n": 0, "units": 0}
    equal = compared["winner"] == compared["winner_other"]
    sums = compared.assign(equal=equal, n=1).groupby(unit)[["equal", "n"]].sum().to_numpy(float)
    drawn = np.concatenate([counts @ sums for counts in redrawn(len(sums), rng, draws, len(sums))])
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], LEVEL)
    return {"agreement": equal.mean(), "low": low, "high": high, "n": len(compared), "units": len(sums)}
