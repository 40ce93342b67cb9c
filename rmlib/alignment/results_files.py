"""Result files of MT-Bench, AlpacaEval 2 and Arena Hard, in the layouts of their own tools, as one row a model.

Columns are those of the published table (`records.published("alignment")`), so that rows can be put below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rmlib import records, statistics
from rmlib.records.errors import DataError, Place
from rmlib.records.files import placed_rows, value_of

ARENA_WEIGHTS = {"A>>B": (3, 1.0), "A>B": (1, 1.0), "A=B": (1, 0.5), "B>A": (1, 0.0), "B>>A": (3, 0.0)}
UNPARSED = -1  # the score that FastChat writes where a judgment names none


def read_mt_bench(judgments: Path, answers: Path | None = None) -> pd.DataFrame:
    """`mt_bench` (1-10, the mean over both turns' judgments) and, from the answers' file or folder, their mean length.

    `judgments` is `gpt-4_single.jsonl` of FastChat; what could not be parsed (score -1) is left out and counted in
    `mt_bench_unparsed`, as FastChat does. Raises DataError for a row that lacks a field, with its number.
    """
    table = pd.DataFrame(_lines(judgments, "model", "score", "turn"))
    known = table[table["score"] != UNPARSED]
    found = known.groupby("model")["score"].mean().to_frame("mt_bench")
    found["mt_bench_unparsed"] = table.groupby("model")["score"].apply(lambda scores: int((scores == UNPARSED).sum()))
    if answers is not None:
        files = sorted(answers.glob("*.jsonl")) if answers.is_dir() else [answers]
        rows = pd.DataFrame([row for file in files for row in _lines(file, "model_id", "choices")])
        turns = rows.set_index("model_id")["choices"].explode().map(itemgetter("turns")).explode()
        found["mean_length_chars"] = turns.str.len().astype(float).groupby(level=0).mean()
    return found


def read_alpacaeval(leaderboard: Path) -> pd.DataFrame:
    """`alpacaeval2_lc`, its standard error where given, `alpacaeval2` (uncontrolled), percent, and the mean length.

    `leaderboard` is the leaderboard.csv of alpaca_eval. Raises DataError where a column is missing.
    """
    table = pd.read_csv(leaderboard, index_col=0).rename_axis("model")
    names = {"length_controlled_winrate": "alpacaeval2_lc", "win_rate": "alpacaeval2"}
    names["avg_length"] = "alpacaeval2_length"
    _columns(table, leaderboard, *names)
    return table.rename(columns=names | {"lc_standard_error": "alpacaeval2_lc_se"}).filter(like="alpacaeval2")


def read_arena_hard(source: Path) -> pd.DataFrame:
    """`arena_hard` with its 95 % interval, percent, of a leaderboard .csv or a judgments .jsonl of arena-hard-auto.

    In judgments the first game shows the baseline as A, the second as B; a verdict of ">>" counts three times, a tie
    half. Of one model against the baseline, Bradley-Terry's win rate is the weighted share. Games without a verdict are
    left out and counted in `arena_hard_unparsed`; the interval redraws questions. Raises DataError for other layouts.
    """
    if source.suffix == ".csv":
        table = pd.read_csv(source)
        names = {"score": "arena_hard", "rating_q025": "arena_hard_low", "rating_q975": "arena_hard_high"}
        _columns(table, source, "model", *names)
        names["avg_tokens"] = "arena_hard_tokens"
        return table.set_index("model").rename(columns=names).filter(like="arena_hard")
    rows = pd.DataFrame(_lines(source, "question_id", "model", "games"))
    return pd.DataFrame({model: _arena_row(part) for model, part in rows.groupby("model")}).T


def _arena_row(rows: pd.DataFrame) -> dict[str, float]:
    weights, wins = np.zeros(len(rows)), np.zeros(len(rows))
    unparsed = 0
    for index, games in enumerate(rows["games"]):
        for position, game in enumerate(games):
            weight, first = ARENA_WEIGHTS.get(game["score"], (0, 0.0))
            unparsed += not weight
            weights[index] += weight
            wins[index] += weight * (first if position else 1 - first)  # in the first game the model is B
    won, played = statistics.redrawn_sums(np.stack([wins, weights], axis=1), seed=0, draws=2000)[1:].T
    low, high = np.quantile(100 * won / np.maximum(played, 1), (0.025, 0.975))
    found = 100 * wins.sum() / max(weights.sum(), 1)
    return {"arena_hard": found, "arena_hard_low": low, "arena_hard_high": high, "arena_hard_unparsed": unparsed}


def beside_published(*tables: pd.DataFrame) -> pd.DataFrame:
    """The published table with rows of result files below it; `origin` says which is which."""
    published = records.published("alignment").assign(origin="published (70B)").set_index("model")
    shown = ["origin", *(name for name in published.columns if name.startswith(("mt_", "mean_", "alpaca", "arena")))]
    if not tables:
        return published[shown]
    own = pd.concat(tables, axis=1).assign(origin="result files")
    return pd.concat([published[shown], own])


def _lines(file: Path, *names: str) -> Iterator[dict[str, Any]]:
    """The fields of these names of every row; raises DataError, with the row's number, where one is missing."""
    for place, row in placed_rows(file):
        yield {name: value_of(row, name, place) for name in names}


def _columns(table: pd.DataFrame, file: Path, *names: str) -> None:
    if lacking := [name for name in names if name not in table.columns]:
        remedy = "Give the file that the benchmark's own tool wrote"
        raise DataError(Place(file.name), f"lacks the columns {', '.join(lacking)}", remedy)
