"""Pairwise votes, and leaderboards of them: who won between two models, according to a judge. No texts are needed.

A table of votes has one row per vote and the columns judge, question_id, turn, model_a, model_b, winner ("model_a",
"model_b" or "tie"), inconsistent (a tie because the judge's two readings of the pair disagreed), swapped (the source
had the two the other way round) and repeated (the same judge voted on this before). model_a stands before model_b in
alphabetical order, so that all votes on two models can be pooled. The layout is MT-bench's (arXiv 2306.05685).
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from rmlib.records.errors import DataError, Place, check_text, shown
from rmlib.records.files import read_rows, value_of, warn_of
from rmlib.statistics import redrawn_sums

logger = logging.getLogger(__name__)

ELO_MEAN = 1000.0
ELO_PER_LOGIT = 400 / np.log(10)
LEVEL = (0.025, 0.975)
SCORES = {"model_a": 1.0, "tie": 0.5, "model_b": 0.0}  # of model_a
_MAX_STEPS = 200
_TOLERANCE = 1e-9  # of the gradient, in wins, relative to an item's comparisons

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


def agreement(votes: pd.DataFrame, other: pd.DataFrame | None = None, *, seed: int, draws: int = 1000) -> pd.DataFrame:
    """How often two votes on the same two items, question and turn are equal, as MT-bench counts it (its Table 5).

    Every two votes of different judges are compared: both of `votes`, or one of `votes` with one of `other`.

    Returns:
        Rows S1 (all votes; an inconsistent one is a tie) and S2 (neither vote is a tie); columns agreement, low, high
        (shares, 95 %, from a bootstrap over questions), n (compared votes), units (questions), and chance (two judges
        that draw evenly: 1/3, 1/2).
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
    setups = {"S1": (compared, 1 / 3), "S2": (compared[decided], 1 / 2)}
    rows = {name: _agreement(part, seed, draws) | {"chance": c} for name, (part, c) in setups.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setup")


def leaderboard(votes: pd.DataFrame, *, seed: int, draws: int = 1000, prior: float = 0.0) -> pd.DataFrame:
    """Bradley-Terry strengths, best first, with 95 % percentile intervals from a bootstrap over questions.

    Args:
        prior: votes added between every two models, half won by each; 0 is maximum likelihood.
    Returns:
        Index model; strength, low, high on the Elo scale (the mean is 1000, 400 points are odds of ten to one), rank,
        rank_low, rank_high (from 1), win_rate (a tie counts half), n (votes).
    Raises DataError where some models were never compared with the others, or, without a prior, never won or never
    lost against them: no finite strengths exist then (Ford, 1957). The same holds of every draw; their number is named.
    """
    models, by_question = _wins(votes)
    sums = redrawn_sums(by_question.reshape(len(by_question), -1), seed=seed, draws=draws)
    wins = sums.reshape(-1, len(models), len(models))
    if prior < 0:
        raise ValueError(f"the prior is {prior} votes; use 0 or more")
    _check_connected(wins[0], models, prior)
    fitted = wins + prior / 2 * (1 - np.eye(len(models)))
    if broken := int((~has_maximum(fitted)).sum()):
        problem = f"{broken} of {draws} draws have no finite strengths: some item never wins or never loses there"
        raise DataError(Place("the votes"), problem, "Add votes, or give a prior")
    logits = fit(fitted)
    point, *drawn = ELO_MEAN + ELO_PER_LOGIT * (logits - logits.mean(axis=1, keepdims=True))
    ranks = (-np.array(drawn)).argsort(axis=1).argsort(axis=1) + 1
    low, high = np.quantile(drawn, LEVEL, axis=0)
    rank_low = np.quantile(ranks, LEVEL[0], axis=0, method="lower")
    rank_high = np.quantile(ranks, LEVEL[1], axis=0, method="higher")
    won, n = wins[0].sum(axis=1), (wins[0] + wins[0].T).sum(axis=1)
    rank = (-point).argsort().argsort() + 1
    columns = {"strength": point, "low": low, "high": high, "rank": rank, "rank_low": rank_low, "rank_high": rank_high}
    table = pd.DataFrame(columns | {"win_rate": won / n, "n": n.astype(int)}, index=pd.Index(models, name="model"))
    return table.sort_values("strength", ascending=False)


def fit(wins: Float[np.ndarray, "table item item"]) -> Float[np.ndarray, "table item"]:
    """Strengths in logits, mean 0 in each table, where wins[t, i, j] counts how often i beat j (Bradley & Terry, 1952).

    Newton's method, with steps of one logit at most. Every table must pass `has_maximum`; raises RuntimeError where the
    likelihood is not maximised in 200 steps.
    """
    n = wins + wins.transpose(0, 2, 1)
    strength = np.zeros(wins.shape[:2])
    for _ in range(_MAX_STEPS):
        p = expit(strength[:, :, None] - strength[:, None, :])
        gradient = (wins - n * p).sum(axis=2)
        if (np.abs(gradient) <= _TOLERANCE * n.sum(axis=2)).all():
            return strength - strength.mean(axis=1, keepdims=True)
        information = n * p * (1 - p)
        # The likelihood does not change when all strengths move alike: a ridge in that one direction fixes them.
        ridge = information.mean(axis=(1, 2), keepdims=True)
        hessian = np.eye(wins.shape[1]) * information.sum(axis=2)[:, :, None] - information + ridge
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        strength += step / np.maximum(1, np.abs(step).max(axis=1, keepdims=True))
    raise RuntimeError(f"the Bradley-Terry likelihood was not maximised in {_MAX_STEPS} steps")


def components(wins: Float[np.ndarray, "item item"]) -> Int[np.ndarray, "item"]:
    """The group of each item, numbered from 0, inside which every item reaches every other by a chain of wins.

    Finite strengths exist exactly where there is one group (Ford, 1957).
    """
    return connected_components(wins > 0, connection="strong")[1]


def has_maximum(wins: Float[np.ndarray, "table item item"]) -> Bool[np.ndarray, "table"]:
    """For each table, whether finite strengths exist: whether all items are one group of `components`."""
    return np.array([not components(table).any() for table in wins], dtype=bool)


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


def _agreement(compared: pd.DataFrame, seed: int, draws: int) -> dict[str, float]:
    if compared.empty:
        return {"agreement": np.nan, "low": np.nan, "high": np.nan, "n": 0, "units": 0}
    equal = compared["winner"] == compared["winner_other"]
    sums = compared.assign(equal=equal, n=1).groupby("question_id")[["equal", "n"]].sum().to_numpy(float)
    found, compared_in_draw = redrawn_sums(sums, seed=seed, draws=draws)[1:].T
    low, high = np.quantile(found / compared_in_draw, LEVEL)
    return {"agreement": equal.mean(), "low": low, "high": high, "n": len(compared), "units": len(sums)}


def _wins(votes: pd.DataFrame) -> tuple[list[str], Float[np.ndarray, "question model model"]]:
    """Names, and how often row beat column in each question; a tie is half for both."""
    if votes.empty:
        raise DataError(Place("the votes"), "there is no vote", "Give some")
    models = sorted({*votes["model_a"], *votes["model_b"]})
    place = {model: index for index, model in enumerate(models)}
    question = votes.groupby("question_id").ngroup().to_numpy()
    a, b = votes["model_a"].map(place).to_numpy(), votes["model_b"].map(place).to_numpy()
    score = votes["winner"].map(SCORES).to_numpy()
    wins = np.zeros((question.max() + 1, len(models), len(models)))
    np.add.at(wins, (question, a, b), score)
    np.add.at(wins, (question, b, a), 1 - score)
    return models, wins


def _check_connected(wins: Float[np.ndarray, "model model"], models: list[str], prior: float) -> None:
    for group, lacking, remedy in (
        (components(wins + wins.T), "never compared with the others", "Add votes between them, or rank them apart"),
        (components(wins), "without a win, or without a loss, against the others", "Add votes, or give a prior"),
    ):
        if group.any():
            names = [models[index] for index in np.flatnonzero(group == np.bincount(group).argmin())]
            raise DataError(Place("the votes"), f"{shown(names)}: {lacking}", remedy)
        if prior > 0:
            return
