"""Leaderboards from a table of votes (`rmlib.annotations.votes`): Bradley-Terry strengths with bootstrap intervals."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from rmlib.records.errors import DataError, Place, shown

ELO_MEAN = 1000.0
ELO_PER_LOGIT = 400 / np.log(10)
LEVEL = (0.025, 0.975)
SCORES = {"model_a": 1.0, "tie": 0.5, "model_b": 0.0}  # of model_a
_MAX_VALUES_PER_BLOCK = 2**23  # 64 MB of doubles at a time, however many draws there are
_MAX_STEPS = 200
_TOLERANCE = 1e-9  # of the gradient, in wins, relative to an item's comparisons

Ties = Literal["half", "left out"]


def strengths(votes: pd.DataFrame, *, ties: Ties = "half", prior: float = 0.0) -> pd.Series:
    """Bradley-Terry strengths on the Elo scale, by model: the mean is 1000, 400 points are odds of ten to one.

    Args:
        ties: half a win for both, or left out.
        prior: votes added between every two items, half won by each; 0 is maximum likelihood.
    Raises DataError where some items were never compared with the others, or, without a prior, never won or never lost
    against them: no finite strengths exist then (Ford, 1957).
    """
    models, wins = _wins(votes, ties, list[str]())
    _check_connected(wins[0], models, prior)
    return pd.Series(_elo(fit(wins + _prior(models, prior)))[0], index=pd.Index(models, name="model"), name="strength")


def leaderboard(
    votes: pd.DataFrame,
    *,
    seed: int,
    draws: int = 1000,
    ties: Ties = "half",
    prior: float = 0.0,
    unit: Sequence[str] = ("question_id",),
) -> pd.DataFrame:
    """`strengths`, best first, with 95 % percentile intervals from a bootstrap over questions.

    Args:
        ties, prior: as `strengths` has them.
        unit: columns that name what is redrawn, with all its votes. For the responses to one prompt, where there is but
            one question, the compared pair: ("model_a", "model_b").
    Returns:
        Index model; strength, low, high (Elo), rank, rank_low, rank_high (from 1), win_rate (a tie counts half), n
        (votes that count).
    Raises DataError as `strengths` does, also where draws have no finite strengths: it names their number, and a prior
    is the remedy.
    """
    models, by_unit = _wins(votes, ties, list(unit))
    wins = by_unit.sum(axis=0, keepdims=True)
    _check_connected(wins[0], models, prior)
    added = _prior(models, prior)
    point = _elo(fit(wins + added))[0]
    drawn = _drawn_strengths(by_unit, added, np.random.default_rng(seed), draws)
    ranks = (-drawn).argsort(axis=1).argsort(axis=1) + 1
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
    # Chains of up to 1 win, then 2, 4, ...: as many doublings as cover the longest chain without a loop.
    reached = (wins > 0) | np.eye(wins.shape[1], dtype=bool)
    for _ in range(wins.shape[1].bit_length()):
        reached = np.matmul(reached.astype(np.float32), reached.astype(np.float32)) > 0
    return np.asarray(reached.all(axis=(1, 2)))


def redrawn(units: int, rng: np.random.Generator, draws: int, values_per_draw: int) -> Iterator[np.ndarray]:
    """How often each unit comes in each draw with replacement, `[draw, unit]`, a block of draws at a time."""
    size = max(1, _MAX_VALUES_PER_BLOCK // values_per_draw)
    for start in range(0, draws, size):
        yield rng.multinomial(units, np.full(units, 1 / units), size=min(size, draws - start)).astype(float)


def _wins(votes: pd.DataFrame, ties: Ties, unit: list[str]) -> tuple[list[str], Float[np.ndarray, "unit model model"]]:
    """Names, and how often row beat column in each unit (in all, if none is named); a tie is half for both."""
    if ties not in ("half", "left out"):
        raise ValueError(f"unknown ties {ties!r}; use 'half' or 'left out'")
    kept = votes if ties == "half" else votes[votes["winner"] != "tie"]
    if kept.empty:
        raise DataError(Place("the votes"), "there is no vote that counts", "Give some, or count ties as half")
    models = sorted({*votes["model_a"], *votes["model_b"]})
    place = {model: index for index, model in enumerate(models)}
    units = kept.groupby(unit).ngroup().to_numpy() if unit else np.zeros(len(kept), dtype=int)
    a, b = kept["model_a"].map(place).to_numpy(), kept["model_b"].map(place).to_numpy()
    score = kept["winner"].map(SCORES).to_numpy()
    wins = np.zeros((units.max() + 1, len(models), len(models)))
    np.add.at(wins, (units, a, b), score)
    np.add.at(wins, (units, b, a), 1 - score)
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


def _prior(models: Sequence[str], votes: float) -> Float[np.ndarray, "model model"]:
    if votes < 0:
        raise ValueError(f"the prior is {votes} votes; use 0 or more")
    return votes / 2 * (1 - np.eye(len(models)))


def _drawn_strengths(
    by_unit: Float[np.ndarray, "unit model model"],
    added: Float[np.ndarray, "model model"],
    rng: np.random.Generator,
    draws: int,
) -> Float[np.ndarray, "draw model"]:
    units, n_models = by_unit.shape[:2]
    drawn, broken = [], 0
    for counts in redrawn(units, rng, draws, units + 4 * n_models**2):
        wins = (counts @ by_unit.reshape(units, -1)).reshape(-1, n_models, n_models) + added
        good = has_maximum(wins)
        broken += int((~good).sum())
        drawn.append(_elo(fit(wins[good])))
    if broken:
        problem = f"{broken} of {draws} draws have no finite strengths: some item never wins or never loses there"
        raise DataError(Place("the votes"), problem, "Add votes, or give a prior")
    return np.concatenate(drawn)


def _elo(theta: Float[np.ndarray, "draw model"]) -> Float[np.ndarray, "draw model"]:
    return ELO_MEAN + ELO_PER_LOGIT * (theta - theta.mean(axis=1, keepdims=True))
