"""Pairwise votes, and leaderboards of them: who won between two models, according to a judge. No texts are needed.

A table of votes has one row per vote and the columns judge, question_id, turn, model_a, model_b, winner ("model_a",
"model_b" or "tie"), inconsistent (a tie because the judge's two readings of the pair disagreed), both_bad (a tie
because neither was any good), swapped (the source had the two the other way round) and repeated (the same judge voted
on this before). model_a stands before model_b in alphabetical order, so that all votes on two models can be pooled.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from rmlib.annotations import tie_models
from rmlib.records.errors import DataError, Place, check_text, shown
from rmlib.records.files import read_rows, value_of, warn_of
from rmlib.statistics import redrawn_sums

logger = logging.getLogger(__name__)

ELO_MEAN = 1000.0
ELO_PER_LOGIT = 400 / np.log(10)
LEVEL = (0.025, 0.975)
TIES = ("half", "davidson", "rao_kupper")
_MAX_STEPS = 200
_RARE = 1e-12
_TOLERANCE = 1e-9  # of the gradient, in wins, relative to an item's comparisons

INCONSISTENT, BOTH_BAD = "tie (inconsistent)", "both bad"
# What winners are called, without case, spaces and signs.
_WINNERS = {
    "model_a": ("modela", "a", "left", "modelx", "model1"), "model_b": ("modelb", "b", "right", "modely", "model2"),
    "tie": ("tie", "draw", "equal"), INCONSISTENT: ("tieinconsistent",),
    BOTH_BAD: ("bothbad", "tiebothbad", "bothbadtie", "botharebad", "bothfailed", "neither"),
}  # fmt: skip
_MEANING = {called: winner for winner, names in _WINNERS.items() for called in names}
_FLIPPED = {"model_a": "model_b", "model_b": "model_a"}
_COMPARED = ["question_id", "turn", "model_a", "model_b"]
_FIELDS = ("judge", "question_id", "turn", "model_a", "model_b", "winner")
# The columns of a file that hold each field, the first that is there: MT-bench's (arXiv 2306.05685), those of the
# published votes of arenas, and of crowds.
_COLUMNS = {
    "judge": ("judge", "annotator", "worker", "user_id"),
    "question_id": ("question_id", "prompt_id", "prompt", "id"),
    "turn": ("turn",),
    "model_a": ("model_a", "model_x", "model_1", "left"),
    "model_b": ("model_b", "model_y", "model_2", "right"),
    "winner": ("winner",),
}
_ONE_OF_THREE = {"winner_model_a": "model_a", "winner_model_b": "model_b", "winner_tie": "tie"}
_NO_JUDGE = "unnamed"
_DEFAULT = {"judge": _NO_JUDGE, "question_id": 0, "turn": 1}
_MODELS = ("model_a", "model_b")
_WITHOUT = {
    "judge": "no judge named: no vote counts as repeated",
    "question_id": "no question named: each vote is taken to have its own",
    "turn": "no turn named: taken as the first",
}


def read(path: str | Path) -> pd.DataFrame:
    """The votes of a file (JSON lines, csv or parquet, plain or gzip) as a table of votes.

    The columns are named as in MT-bench's files or as in those of arenas and crowds, case, blanks and dashes aside; the
    winner is a column `winner`, which may hold the name of one of the two models, or three columns winner_model_a,
    winner_model_b, winner_tie of which one is 1. Turns count from 1. Columns of no use
    here, columns that are not there, and votes that a judge repeats, are counted and logged; no vote is left out.
    Raises DataError naming file, row and field.
    """
    path, rows, notes = Path(path).expanduser(), [], Counter[str]()
    if not path.is_file():
        raise DataError(Place(str(path)), "there is no such file", "Name a file of votes")
    for number, given in enumerate(read_rows(path), start=1):
        row = _named(given, Place(path.name, number))
        columns = {field: next((name for name in names if name in row), field) for field, names in _COLUMNS.items()}
        rows.append(_checked(row, columns, Place(path.name, number)))
        notes.update(text for field, text in _WITHOUT.items() if columns[field] not in row)
        used = {*columns.values(), *(_ONE_OF_THREE if "winner" not in row else ())}
        notes.update(f"column {column} not used" for column in row.keys() - used)
    warn_of(notes, path.name, logger)
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


def leaderboard(
    votes: pd.DataFrame, *, seed: int, draws: int = 1000, prior: float = 0.0, ties: str = "half"
) -> pd.DataFrame:
    """Strengths of the models, best first, with 95 % percentile intervals from a bootstrap over questions.

    Args:
        prior: votes added between every two models, half won by each; 0 is maximum likelihood.
        ties: what a tie is (a vote that both are bad is one): "half" a win for both (Bradley & Terry, 1952), or an
            outcome of its own, by the model of "davidson" (1970) or of "rao_kupper" (1967).
    Returns:
        Index model; strength, low, high on the Elo scale (the mean is 1000; 400 points are odds of ten to one, in the
        models of ties odds of winning to losing as far as these depend on strength), rank, rank_low, rank_high (from
        1), win_rate (a tie counts half), n (votes), both_bad (votes that found both bad).
    Raises DataError where some models were never compared with the others, or, without a prior, never won or never
    lost against them: no finite strengths exist then (Ford, 1957). The same holds of every draw; their number is named.
    """
    if ties not in TIES:
        raise ValueError(f"ties={ties!r} is unknown; known: {', '.join(TIES)}")
    if prior < 0:
        raise ValueError(f"the prior is {prior} votes; use 0 or more")
    models, by_question = _counts(votes)
    sums = redrawn_sums(by_question.reshape(len(by_question), -1), seed=seed, draws=draws)
    won, tied = np.moveaxis(sums.reshape(-1, 2, len(models), len(models)), 1, 0)
    halves = won + tied / 2
    _check_connected(halves[0], models, prior)
    added = prior / 2 * (1 - np.eye(len(models)))
    if broken := int((~has_maximum(halves + added)).sum()):
        problem = f"{broken} of {draws} draws have no finite strengths: some item never wins or never loses there"
        raise DataError(Place("the votes"), problem, "Add votes, or give a prior")
    logits = fit(halves + added) if ties == "half" else fit_with_ties(won + added, tied, ties)
    point, *drawn = ELO_MEAN + ELO_PER_LOGIT * (logits - logits.mean(axis=1, keepdims=True))
    ranks = (-np.array(drawn)).argsort(axis=1).argsort(axis=1) + 1
    low, high = np.quantile(drawn, LEVEL, axis=0)
    rank_low = np.quantile(ranks, LEVEL[0], axis=0, method="lower")
    rank_high = np.quantile(ranks, LEVEL[1], axis=0, method="higher")
    score, n = halves[0].sum(axis=1), (halves[0] + halves[0].T).sum(axis=1)
    rank = (-point).argsort().argsort() + 1
    columns = {"strength": point, "low": low, "high": high, "rank": rank, "rank_low": rank_low, "rank_high": rank_high}
    table = pd.DataFrame(columns | {"win_rate": score / n, "n": n.astype(int)}, index=pd.Index(models, name="model"))
    bad = votes[votes["both_bad"]]
    counts = pd.concat([bad["model_a"], bad["model_b"]]).value_counts()
    return table.assign(both_bad=counts.reindex(models, fill_value=0)).sort_values("strength", ascending=False)


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


def fit_with_ties(
    wins: Float[np.ndarray, "table item item"], ties: Float[np.ndarray, "table item item"], model: str
) -> Float[np.ndarray, "table item"]:
    """Strengths in logits, mean 0 in each table, where ties[t, i, j] = ties[t, j, i] counts the ties of i and j.

    With d the difference of two strengths and n >= 0 or m >= 0 estimated with them, a win and a tie have probabilities
    e^(d/2) / Z and n / Z, Z = e^(d/2) + e^(-d/2) + n ("davidson", Davidson 1970), or expit(d - m) and
    1 - expit(d - m) - expit(-d - m) ("rao_kupper", Rao & Kupper 1967). A table without a tie is one of Bradley and
    Terry's. Fisher scoring, with steps of one at most; wins + ties / 2 of every table must pass `has_maximum`. Raises
    DataError where every vote of a table is a tie, RuntimeError where 200 steps are not enough.
    """
    if not wins.any(axis=(1, 2)).all():
        raise DataError(
            Place("the votes"), "every vote is a tie, here or in a draw", "Use ties='half', or give a prior"
        )
    outcomes = {"davidson": tie_models.davidson, "rao_kupper": tie_models.rao_kupper}[model]
    n_tables, n_items = wins.shape[:2]
    seen = np.stack([wins, wins.transpose(0, 2, 1), ties])  # won, lost, tied by the first of each two
    n, has_ties = seen.sum(axis=0), ties.any(axis=(1, 2))
    strength, of_ties = np.zeros((n_tables, n_items)), np.zeros(n_tables)
    for _ in range(_MAX_STEPS):
        d = strength[:, :, None] - strength[:, None, :]
        p, by_d, by_ties = outcomes(d, np.where(has_ties, of_ties, -np.inf)[:, None, None])
        ratio = np.divide(seen, p, out=np.zeros_like(seen), where=seen > 0)
        scores = (ratio * by_d).sum(axis=(0, 3)), (ratio * by_ties).sum(axis=(0, 2, 3)) / 2
        gradient = np.concatenate([scores[0], scores[1][:, None]], axis=1)
        if (np.abs(gradient) <= _TOLERANCE * n.sum(axis=(1, 2))[:, None]).all():
            return strength - strength.mean(axis=1, keepdims=True)
        safe = np.where(p > _RARE, p, np.inf)  # what hardly ever happens informs of nothing
        information = n * (by_d**2 / safe).sum(axis=0)
        across = (n * (by_d * by_ties / safe).sum(axis=0)).sum(axis=2)
        own = (n * (by_ties**2 / safe).sum(axis=0)).sum(axis=(1, 2)) / 2
        hessian = np.zeros((n_tables, n_items + 1, n_items + 1))
        ridge = information.mean(axis=(1, 2), keepdims=True)  # see `fit`
        hessian[:, :-1, :-1] = np.eye(n_items) * information.sum(axis=2)[:, :, None] - information + ridge
        hessian[:, :-1, -1] = hessian[:, -1, :-1] = across
        hessian[:, -1, -1] = np.where(has_ties, own, 1.0)
        step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
        step /= np.maximum(1, np.abs(step).max(axis=1, keepdims=True))
        strength, of_ties = strength + step[:, :-1], of_ties + step[:, -1]
    raise RuntimeError(f"the likelihood of {model} was not maximised in {_MAX_STEPS} steps")


def components(wins: Float[np.ndarray, "item item"]) -> Int[np.ndarray, "item"]:
    """The group of each item, numbered from 0, inside which every item reaches every other by a chain of wins.

    Finite strengths exist exactly where there is one group (Ford, 1957).
    """
    return connected_components(wins > 0, connection="strong")[1]


def has_maximum(wins: Float[np.ndarray, "table item item"]) -> Bool[np.ndarray, "table"]:
    """For each table, whether finite strengths exist: whether all items are one group of `components`."""
    return np.array([not components(table).any() for table in wins], dtype=bool)


def _named(given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The row with its columns in lower case, and _ for blanks and dashes."""
    row = {re.sub(r"[\s-]+", "_", str(name).strip().lower()): value for name, value in given.items()}
    if len(row) < len(given):
        problem = f"two columns have one name but for case, blanks and dashes: {shown(', '.join(map(str, given)))}"
        raise DataError(place, problem, "Rename or remove one")
    return row


def _checked(row: Mapping[str, Any], columns: Mapping[str, str], place: Place) -> tuple[Any, ...]:
    model_a, model_b = (check_text(value_of(row, columns[f], place), place.at(columns[f])) for f in _MODELS)
    if model_a == model_b:
        problem = f"{shown(model_b)} is compared with itself"
        raise DataError(place.at(columns["model_b"]), problem, "Correct or remove the vote")
    judge, question, turn = (row.get(columns[field], _DEFAULT[field]) for field in ("judge", "question_id", "turn"))
    if isinstance(judge, int) and not isinstance(judge, bool):
        judge = str(judge)
    check_text(judge, place.at(columns["judge"]))
    if isinstance(question, bool) or not isinstance(question, int | str) or question == "":
        problem = f"{shown(question)} names no question"
        raise DataError(place.at(columns["question_id"]), problem, "Give a number or a text")
    turn = _whole(turn)
    if turn is None or turn < 1:
        raise DataError(place.at("turn"), f"{shown(row['turn'])} is not a turn", "Give a whole number from 1")
    asked = place.row if columns["question_id"] not in row else question
    return judge, str(asked), turn, model_a, model_b, _winner(row, place, (model_a, model_b))


def _whole(value: Any) -> int | None:
    """A whole number, or the text of one as csv has it; else None."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _winner(row: Mapping[str, Any], place: Place, models: tuple[str, str]) -> str:
    if "winner" not in row and _ONE_OF_THREE.keys() <= row.keys():
        marks = {winner: _whole(row[column]) for column, winner in _ONE_OF_THREE.items()}
        won = [winner for winner, mark in marks.items() if mark == 1]
        if len(won) != 1 or sorted(map(str, marks.values())) != ["0", "0", "1"]:
            problem = f"not one of {', '.join(_ONE_OF_THREE)} is 1, and the others 0"
            raise DataError(place.at("winner_model_a"), problem, "Mark one of the three with 1")
        return won[0]
    winner = value_of(row, "winner", place)
    meant = _MEANING.get(re.sub(r"[\W_]", "", winner.lower())) if isinstance(winner, str) else None
    named = _MODELS[models.index(winner)] if winner in models else None
    if meant and named and meant != named:
        problem = f"{shown(winner)} is the name of {named}, and also a word for {meant}"
        raise DataError(place.at("winner"), problem, f"Use {', '.join(_WINNERS)}")
    if meant is None and named is None:
        remedy = f"Use one of {', '.join(_WINNERS)}, or the name of one of the two models"
        raise DataError(place.at("winner"), f"{shown(winner)} is neither a winner nor one of the two models", remedy)
    return meant or str(named)


def _table(rows: Iterable[tuple[Any, ...]], origin: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(_FIELDS))
    table["inconsistent"], table["both_bad"] = table["winner"] == INCONSISTENT, table["winner"] == BOTH_BAD
    table["swapped"] = table["model_a"] > table["model_b"]
    winner = table["winner"].replace({INCONSISTENT: "tie", BOTH_BAD: "tie"})
    table["winner"] = winner.where(~table["swapped"], winner.replace(_FLIPPED))
    first, second = table["model_a"], table["model_b"]
    table["model_a"], table["model_b"] = first.where(first < second, second), second.where(first < second, first)
    table["repeated"] = table.duplicated(["judge", *_COMPARED]) & (table["judge"] != _NO_JUDGE)
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


def _counts(votes: pd.DataFrame) -> tuple[list[str], Float[np.ndarray, "question 2 model model"]]:
    """Names, and how often row beat column in each question, and tied with it."""
    if votes.empty:
        raise DataError(Place("the votes"), "there is no vote", "Give some")
    models = sorted({*votes["model_a"], *votes["model_b"]})
    place = {model: index for index, model in enumerate(models)}
    question = votes.groupby("question_id").ngroup().to_numpy()
    a, b = votes["model_a"].map(place).to_numpy(), votes["model_b"].map(place).to_numpy()
    winner = votes["winner"].to_numpy()
    won, tied = np.zeros((2, question.max() + 1, len(models), len(models)))
    np.add.at(won, (question, a, b), winner == "model_a")
    np.add.at(won, (question, b, a), winner == "model_b")
    np.add.at(tied, (question, a, b), winner == "tie")
    return models, np.stack([won, tied + tied.transpose(0, 2, 1)], axis=1)


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
