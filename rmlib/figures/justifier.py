"""Tables and figures of pairwise judges, from their records (`alignment.justifier` says what these hold)."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from rmlib import records, statistics
from rmlib.benchmarks.judges import TIE, UNPARSABLE
from rmlib.figures import style
from rmlib.figures.summaries import columns_of, interval_of

RIGHT, WRONG, BY_ORDER, NONE = "right in both orders", "wrong in both", "depends on the order", "no verdict in one"
OUTCOMES = (RIGHT, BY_ORDER, NONE, WRONG)
OUTCOME_COLOURS = dict(zip(OUTCOMES, (style.COLOURS[2], style.COLOURS[8], "0.8", style.COLOURS[3]), strict=True))
TRAINING = "outcome.training"


def runs(file: Path) -> pd.DataFrame:
    """The records of the judges on the pairs that were judged last."""
    table = records.read(file, "pairwise_judge")
    return table[table["asked.items"] == table["asked.items"].iloc[-1]]


def _by_judge(file: Path) -> dict[str, pd.DataFrame]:
    """The `runs` of each judge, in the order of their first records."""
    return {str(judge): part for judge, part in runs(file).groupby("asked.judge", sort=False)}


def winners(rows: pd.DataFrame) -> Float[np.ndarray, "seed order pair"]:
    """0 where the preferred response wins, 1 where the other does, NaN without a verdict."""
    orders = [np.array(rows[f"outcome.{order}"].tolist(), dtype=float) for order in ("first", "second")]
    return np.stack(orders, axis=1)


def credit(won: Float[np.ndarray, "*seed order pair"]) -> Float[np.ndarray, "*seed pair"]:
    """What a pair earns, mean of both orders: 1 for the preferred response, 0 for the other, 0.5 without a verdict."""
    return np.where(np.isnan(won), 0.5, 1 - won).mean(axis=-2)


def summary(file: Path) -> pd.DataFrame:
    """One row a judge: agreement with the preferences, consistency, lean to the first place, verdicts missing.

    Columns: n (pairs), seeds; agreement (mean `credit`) with low and high, redrawing pairs and seeds; detectable, the
    smallest distance of the agreement from one half that these pairs would have shown four times in five; consistent
    (share of the pairs with a verdict in both orders whose winner is the same), consistent low and high; shown_first
    (share of all verdicts that favour the response shown first); and the shares of verdicts that are missing by kind.
    """
    return pd.DataFrame({judge: _summary(part) for judge, part in _by_judge(file).items()}).T.infer_objects()


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    won = winners(rows)
    each = credit(won)
    agreement = interval_of(each)
    decided = ~np.isnan(won).any(axis=1)
    same, n_decided = int((won[:, 0] == won[:, 1]).sum()), int(decided.sum())
    found: dict[str, Any] = {"n": won.shape[-1], "seeds": len(won), "agreement": agreement.estimate}
    found |= {"low": agreement.low, "high": agreement.high, "detectable": _detectable(each)}
    if n_decided:
        found |= columns_of("consistent", statistics.wilson_interval(same, n_decided))
    favoured = (won[:, 0] == 0).sum() + (won[:, 1] == 1).sum()
    found["shown_first"] = float(favoured / max(1, (~np.isnan(won)).sum()))
    missing: Counter[str] = Counter(dict.fromkeys((UNPARSABLE, TIE), 0))
    for problems in rows["outcome.problems"]:
        missing.update(problems)
    return found | {kind: count / won.size for kind, count in missing.items()}


def _detectable(credits: Float[np.ndarray, "seed pair"]) -> float:
    """By the normal approximation: a z-test at 5 %, two-sided, with a power of 80 %; pairs are what is redrawn."""
    return float(2.8 * credits.mean(axis=0).std(ddof=1) / np.sqrt(credits.shape[1]))


def outcome_shares(file: Path) -> pd.DataFrame:
    """One row a judge, one column for each of OUTCOMES: shares of the pairs (and seeds)."""
    shares = {}
    for judge, part in _by_judge(file).items():
        won = winners(part)
        none = np.isnan(won).any(axis=1)
        kinds = {RIGHT: (won == 0).all(axis=1), WRONG: (won == 1).all(axis=1), NONE: none}
        kinds[BY_ORDER] = ~none & (won[:, 0] != won[:, 1])
        shares[judge] = {kind: float(kinds[kind].mean()) for kind in OUTCOMES}
    return pd.DataFrame(shares).T


def by_strength(file: Path) -> pd.DataFrame:
    """Agreement by strength of preference: columns judge, strength, estimate, low, high, n."""
    rows = []
    for judge, part in _by_judge(file).items():
        each, strength = credit(winners(part)), np.array(part.iloc[0]["outcome.strength"])
        for value in sorted(set(strength)):
            rows.append({"judge": judge, "strength": int(value), **vars(interval_of(each[:, strength == value]))})
    return pd.DataFrame(rows)


def differences(file: Path, questions: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """For each two judges, the difference in agreement with its interval, over the pairs that both judged.

    Columns judge, against, estimate, low, high, n. A judge with several seeds counts by its mean over them.
    """
    parts = {judge: credit(winners(part)).mean(axis=0) for judge, part in _by_judge(file).items()}
    found = [vars(interval_of((parts[judge] - parts[against])[None])) for judge, against in questions]
    return pd.concat([pd.DataFrame(questions, columns=["judge", "against"]), pd.DataFrame(found)], axis=1)


def judges_figure(file: Path) -> Figure:
    """Agreement with held-out preferences, position consistency, and what happens to a pair shown in both orders."""
    table, shares = summary(file), outcome_shares(file)
    figure, panels = style.new_figure(11.5, 0.42 * len(table) + 1.7, 3, sharey=True)
    intervals = (["agreement", "low", "high"], ["consistent", "consistent low", "consistent high"])
    own, words = [_look(file, judge) for judge in table.index], list(table.index)
    for panel, columns in zip(panels, intervals, strict=False):
        heights = style.forest(panel, table, words=words, chance=0.5, columns=columns, own=own)
    panels[0].set(title="agreement with preferences", xlabel="mean of both orders")
    panels[1].set(title="position consistency", xlabel="same winner in both orders", xlim=(-0.03, 1.03))
    left = np.zeros(len(table))
    for kind in OUTCOMES:
        widths = shares[kind].to_numpy()
        panels[2].barh(heights, widths, left=left, height=0.6, color=OUTCOME_COLOURS[kind], label=kind)
        left += widths
    panels[2].set(title="one pair, both orders", xlabel="share of pairs", xlim=(0, 1))
    panels[2].grid(axis="y", visible=False)
    how = "agreement: bootstrap; consistency: Wilson, of the pairs decided in both orders"
    details = *_details(file, table), how
    return style.finished(figure, "Pairwise judges on held-out pairs", *details, legend=4, loc="outside lower right")


def judge_strength_figure(file: Path) -> Figure:
    """Agreement by how strong the preference is."""
    table = by_strength(file)
    figure, (axes,) = style.new_figure(9, 3.8)
    judges = list(dict.fromkeys(table["judge"]))
    for number, judge in enumerate(judges):
        part = table[table["judge"] == judge]
        x = part["strength"] + 0.06 * (number - (len(judges) - 1) / 2)
        style.points(axes, x, part, _look(file, judge), ms=6, label=judge)
    axes.axhline(0.5, color="0.5", lw=1, ls=":")
    first = table[table["judge"] == judges[0]]
    ticks = [f"{row['strength']}\n{row['n']:,} pairs" for row in first.to_dict("records")]
    axes.set_xticks(first["strength"], ticks)
    axes.set(xlabel="strength of the preference", ylabel="agreement (dotted: chance)")
    details = _details(file, summary(file))
    return style.finished(figure, "Agreement by strength of the preference", *details, legend=3)


def fine_tuning_figure(file: Path) -> Figure:
    """Cross-entropy of the written tokens while justifiers are fine-tuned."""
    table = runs(file)
    figure, (axes,) = style.new_figure(9, 3.4)
    trained = table[table[TRAINING].notna()]
    for judge, part in trained.groupby("asked.judge", sort=False):
        for index, training in enumerate(part[TRAINING]):
            curve, named = pd.DataFrame(training["curve"]), str(judge) if index == 0 else None
            look = _look(file, str(judge)) | {"markevery": 0.1, "ms": 4, "lw": 1.5}
            axes.plot(curve["step"], curve["loss"], label=named, **look)
    axes.set(xlabel="optimizer step", ylabel="loss (nats a written token)", yscale="log")
    source = table.iloc[-1]["asked.source"]["title"]
    title = "Fine-tuning: how surprising the justifications are"
    return style.finished(figure, title, source, "one line a seed", legend=3)


def _look(file: Path, judge: str) -> dict[str, Any]:
    """What a judge looks like in every figure: a ruler as everywhere, the others in the order of their records."""
    if judge in style.RULERS:
        return style.look_of(judge, line=True)
    return style.looks(style.series(list(_by_judge(file)).index(judge)), line=True)


def _details(file: Path, table: pd.DataFrame) -> tuple[str, str]:
    seeds, n = int(table["seeds"].max()), int(table["n"].iloc[0])
    over = f"pairs and {seeds} seeds" if seeds > 1 else "pairs"
    detail = f"{n:,} decided test pairs, each in both orders; lines: 95 % intervals over {over}; dotted: coins"
    return runs(file).iloc[-1]["asked.source"]["title"], detail
