"""Any number of models on the same items: paired differences, intervals of ranks, and a rank that noise shares."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

from rmlib.statistics.crossed import crossed_scores
from rmlib.statistics.intervals import matched_seeds, redrawn, seed_by_item
from rmlib.statistics.paired import holm

LEVEL = 0.95  # of the intervals, and of the tests 1 minus it
BOUNDS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
DIGITS = 12  # scores that differ by rounding alone are equal


@dataclass(frozen=True)
class Comparison:
    """Models on the same items.

    Attributes:
        leaderboard: index model, best first; columns rank, estimate, low, high (score with its bootstrap interval),
            rank_low, rank_high (interval of the place among these models), seeds, n (items).
        differences: one row for each two models, columns model, against, estimate, low, high (difference in
            score), p, p (Holm: over all pairs of models), clear (bool).
    """

    leaderboard: pd.DataFrame
    differences: pd.DataFrame


def compare_models(
    credits: Mapping[str, ArrayLike],
    scores: Mapping[str, Float[np.ndarray, "draw seed"]],
    *,
    groups: ArrayLike | None = None,
    seed: int,
) -> Comparison:
    """Compare models by a score, and by their credits for the items that it is made of.

    Args:
        credits: for each model its credit 0..1 for every item, `[item]`, or `[seed, item]` where several runs of it met
            the items.
        scores: for the same models the score of each run: in row 0 as it is, in the other rows with the items redrawn,
            the same items for all models.
        groups: `[item]`, a label each: items of one label (all about one prompt) are tested together.
        seed: of the redrawing of runs, where a model has several.
    Raises:
        ValueError: no model, credits of other items or outside 0..1, scores of other models, draws or runs.

    Interval and p of a difference are those of `crossed_scores`: items (or groups) and seeds are both drawn anew. A
    difference is clear where p, adjusted by Holm for all pairs of models, is below 0.05.

    The rank of a model is 1 + the number of models that are clearly better, or the rank of the model above it, if that
    is greater: no model ranks before one with a higher score. So two models that nothing tells apart share a rank,
    unless a third one is clearly better than the lower of them alone.
    """
    tables = _tables(credits, scores)
    scores = {model: scores[model].round(DIGITS) for model in tables}
    estimates = np.array([scores[model][0].mean() for model in tables]).round(DIGITS)
    drawn = np.stack([_over_seeds(scores[model][1:], seed) for model in tables], axis=1).round(DIGITS)
    differences = _differences(tables, scores, None if groups is None else np.asarray(groups))
    return Comparison(_leaderboard(tables, estimates, drawn, differences), differences)


def _tables(
    credits: Mapping[str, ArrayLike], scores: Mapping[str, Float[np.ndarray, "draw seed"]]
) -> dict[str, Float[np.ndarray, "seed item"]]:
    if not credits or credits.keys() != scores.keys():
        raise ValueError(f"credits are of {list(credits) or 'no model'}, scores of {list(scores) or 'no model'}")
    tables = {model: seed_by_item(values, f"credits of {model!r}") for model, values in credits.items()}
    n_items, draws = next(iter(tables.values())).shape[1], len(next(iter(scores.values())))
    for model, table in tables.items():
        if table.shape[1] != n_items:
            raise ValueError(f"{model!r} has credits for {table.shape[1]} items, the first model for {n_items}")
        if table.min() < 0 or table.max() > 1:
            raise ValueError(f"credits of {model!r} must lie in 0..1, got {table.min()}..{table.max()}")
        if scores[model].shape != (draws, len(table)):
            raise ValueError(f"scores of {model!r} have shape {list(scores[model].shape)}, not {[draws, len(table)]}")
    return tables


def _over_seeds(runs: Float[np.ndarray, "draw seed"], seed: int) -> Float[np.ndarray, "draw"]:
    """The mean over redrawn seeds; models with equally many seeds meet the same ones."""
    draws, n_seeds = runs.shape
    times = np.concatenate(list(redrawn(n_seeds, seed=[seed, n_seeds], draws=draws)))
    return (times * runs).sum(axis=1) / n_seeds


def _differences(
    tables: Mapping[str, Float[np.ndarray, "seed item"]],
    scores: Mapping[str, Float[np.ndarray, "draw seed"]],
    groups: np.ndarray | None,
) -> pd.DataFrame:
    n = next(iter(tables.values())).shape[1]
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    rows = []
    for one, other in combinations(tables, 2):
        a, b = matched_seeds(tables[one], tables[other])
        apart = len(np.unique(units[(a != b).any(axis=0)]))
        found = crossed_scores(scores[one], scores[other], units=int(units.max()) + 1, apart=apart, n=n)
        interval = found.interval(LEVEL)
        rows.append((one, other, round(found.estimate, DIGITS), interval.low, interval.high, found.p_value))
    table = pd.DataFrame(rows, columns=["model", "against", "estimate", "low", "high", "p"])
    table["p (Holm)"] = holm(table["p"]) if rows else table["p"]
    return table.assign(clear=table["p (Holm)"] < 1 - LEVEL)


def _leaderboard(
    tables: Mapping[str, Float[np.ndarray, "seed item"]],
    estimates: Float[np.ndarray, "model"],
    drawn: Float[np.ndarray, "draw model"],
    differences: pd.DataFrame,
) -> pd.DataFrame:
    low, high = np.quantile(drawn, BOUNDS, axis=0)
    places = 1 + (drawn[:, None, :] > drawn[:, :, None]).sum(axis=2)  # in each draw, 1 + the models above
    clear = differences[differences["clear"]]
    beaten = pd.concat([clear.loc[clear["estimate"] > 0, "against"], clear.loc[clear["estimate"] < 0, "model"]])
    table = pd.DataFrame(
        {
            "rank": 1 + beaten.value_counts().reindex(list(tables), fill_value=0),
            "estimate": estimates,
            "low": low,
            "high": high,
            "rank_low": np.quantile(places, BOUNDS[0], axis=0, method="lower"),
            "rank_high": np.quantile(places, BOUNDS[1], axis=0, method="higher"),
            "seeds": [len(rows) for rows in tables.values()],
            "n": [rows.shape[1] for rows in tables.values()],
        },
        index=pd.Index(list(tables), name="model"),
    )
    table = table.sort_values(["estimate", "rank"], ascending=[False, True], kind="stable")
    return table.assign(rank=table["rank"].cummax())
