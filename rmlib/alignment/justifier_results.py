"""How a pairwise judge does on held-out pairs, shown in both orders: what a record keeps of it, and tables of records.

A record of kind "pairwise_judge", one for each judge (and seed of a justifier):

    asked     judge (its name), about (how it came about), source, items (a hash of them), n
    outcome   first, second: the winner when the preferred response is shown first and when it is shown second, 0 for
              the preferred one, 1 for the other, None without a verdict; problems (number of verdicts by kind),
              strength (of each pair's preference), words (mean number written), training (of a justifier)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Float

from rmlib import records, statistics
from rmlib.alignment.justifier import Justifier, verdict_of
from rmlib.benchmarks import rewardbench
from rmlib.benchmarks.asking import Question, ask
from rmlib.benchmarks.items import Scorer
from rmlib.benchmarks.judges import TIE, UNPARSABLE, Judge
from rmlib.benchmarks.judging import both_orders
from rmlib.benchmarks.scoring import score
from rmlib.records.hashing import fingerprint
from rmlib.sources import SourceInfo
from rmlib.sources.simulated import reasons

KIND = "pairwise_judge"
RIGHT, WRONG, BY_ORDER, NONE = "right in both orders", "wrong in both", "depends on the order", "no verdict in one"
OUTCOMES = (RIGHT, BY_ORDER, NONE, WRONG)
ORDERS = ("first", "second")


def judged(judge: Judge, items: Dataset, *, progress: bool = True) -> dict[str, Any]:
    """Both orders of every pair, as the outcome of a record; kept verdicts are not asked for again."""
    orders = both_orders(items, partial(ask, judge, progress=progress))
    outcome = outcome_of(items, orders)
    if isinstance(judge, Justifier):
        outcome["words"] = float(np.mean([len(text.split()) for text in written(judge, items)]))
    return outcome


def written(judge: Justifier, items: Dataset) -> list[str]:
    """What a justifier says of every pair, the preferred response shown first, then shown second."""
    pairs = [(item["prompt"], tuple(item["candidates"])) for item in items]
    return judge.write([Question(prompt, each) for prompt, two in pairs for each in (two, two[::-1])])


def claims(texts: Sequence[str], truths: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> dict[str, int]:
    """Of simulated pairs: what texts say is better about a response, held against the truth and against their verdict.

    `truths` are those of response 1 and 2 as each text was shown them. Counts: claims; true, those of which the named
    response is truly better in that attribute; equal, where the truth is the same for both; with verdict, those in
    favour of the response that the text prefers in the end (of `decided` claims, whose text has a verdict).
    """
    counted = dict.fromkeys(("claims", "true", "equal", "decided", "with verdict"), 0)
    for text, truth in zip(texts, truths, strict=True):
        verdict = verdict_of(text).value
        for attribute, good in reasons.claims(text):
            difference = truth[good - 1][attribute] - truth[2 - good][attribute]
            counted["claims"] += 1
            counted["true"] += difference > 0
            counted["equal"] += difference == 0
            counted["decided"] += verdict is not None
            counted["with verdict"] += verdict == good - 1
    return counted


def by_reward(scorer: Scorer, items: Dataset) -> dict[str, Any]:
    """The outcome of a scorer, whose larger reward wins in either order; equal rewards tie in both."""
    margins = rewardbench.margins(items, score(scorer, items, progress=False))
    winner = np.where(margins > 0, 0.0, np.where(margins < 0, 1.0, np.nan))
    problem = pd.array([TIE if margin == 0 else None for margin in margins], dtype=object)
    return outcome_of(items, pd.DataFrame({"first": winner, "second": winner, "problem": problem}))


def outcome_of(items: Dataset, orders: pd.DataFrame) -> dict[str, Any]:
    """What a record keeps of `judging.both_orders`."""
    values = {order: [None if np.isnan(value) else int(value) for value in orders[order]] for order in ORDERS}
    problems: Counter[str] = Counter()
    for met, missing in zip(orders["problem"], orders[[*ORDERS]].isna().sum(axis=1), strict=True):
        kinds = met.split(", ") if isinstance(met, str) else []  # a table may have made a NaN of None
        problems.update(kinds * int(missing) if len(kinds) == 1 else kinds)  # one for each verdict that is missing
    strength = [int(subset.rpartition(" ")[2]) for subset in items["subset"][:]]
    return {**values, "problems": dict(problems), "strength": strength}


def record(
    file: Path,
    judge: str,
    outcome: Mapping[str, Any],
    *,
    items: Dataset,
    source: SourceInfo,
    about: Mapping[str, Any],
    seed: int | None = None,
) -> None:
    """Append the record of one judge on these pairs."""
    asked = {"judge": judge, "about": about, "source": source, "items": fingerprint(items["item_id"][:])}
    asked |= {"n": len(items)}
    records.append(file, kind=KIND, asked=asked, outcome=outcome, seed=seed)


# --- tables -----------------------------------------------------------------------------------------------------------


def runs(file: Path) -> pd.DataFrame:
    """The records of the judges on the pairs that were judged last, in the order of their judges' first records."""
    table = records.read(file, KIND)
    return table[table["asked.items"] == table["asked.items"].iloc[-1]]


def winners(rows: pd.DataFrame) -> Float[np.ndarray, "seed order pair"]:
    """0 where the preferred response wins, 1 where the other does, NaN without a verdict."""
    return np.array([[row[f"outcome.{order}"] for order in ORDERS] for _, row in rows.iterrows()], dtype=float)


def credit(won: Float[np.ndarray, "*seed order pair"]) -> Float[np.ndarray, "*seed pair"]:
    """What a pair earns, mean of both orders: 1 for the preferred response, 0 for the other, 0.5 without a verdict."""
    return np.where(np.isnan(won), 0.5, 1 - won).mean(axis=-2)


def right(won: Float[np.ndarray, "*seed order pair"]) -> Float[np.ndarray, "*seed pair"]:
    """1 where the preferred response wins in both orders, else 0."""
    return (won == 0).all(axis=-2).astype(float)


def summary(file: Path) -> pd.DataFrame:
    """One row a judge: agreement with the preferences, consistency, lean to the first place, verdicts missing.

    Columns: n (pairs), seeds; agreement (mean `credit`) with low and high, redrawing pairs and seeds; detectable, the
    smallest distance of the agreement from one half that these pairs would have shown four times in five; consistent
    (share of the pairs with a verdict in both orders whose winner is the same), consistent low and high; shown_first
    (share of all verdicts that favour the response shown first); and the shares of verdicts that are missing by kind.
    """
    rows = {str(judge): _summary(part) for judge, part in runs(file).groupby("asked.judge", sort=False)}
    return pd.DataFrame(rows).T.infer_objects()


def _summary(rows: pd.DataFrame) -> dict[str, Any]:
    won = winners(rows)
    each = credit(won)
    agreement = statistics.bootstrap_interval(each if len(each) > 1 else each[0], seed=0)
    decided = ~np.isnan(won).any(axis=1)
    same, n_decided = int((won[:, 0] == won[:, 1]).sum()), int(decided.sum())
    found: dict[str, Any] = {"n": won.shape[-1], "seeds": len(won), "agreement": agreement.estimate}
    found |= {"low": agreement.low, "high": agreement.high, "detectable": _detectable(each)}
    if n_decided:
        stable = statistics.wilson_interval(same, n_decided)
        found |= {"consistent": stable.estimate, "consistent low": stable.low, "consistent high": stable.high}
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
    for judge, part in runs(file).groupby("asked.judge", sort=False):
        won = winners(part)
        none = np.isnan(won).any(axis=1)
        kinds = {RIGHT: (won == 0).all(axis=1), WRONG: (won == 1).all(axis=1), NONE: none}
        kinds[BY_ORDER] = ~none & (won[:, 0] != won[:, 1])
        shares[str(judge)] = {kind: float(kinds[kind].mean()) for kind in OUTCOMES}
    return pd.DataFrame(shares).T


def by_strength(file: Path) -> pd.DataFrame:
    """Agreement by strength of preference: columns judge, strength, n, estimate, low, high."""
    rows = []
    for judge, part in runs(file).groupby("asked.judge", sort=False):
        each, strength = credit(winners(part)), np.array(part.iloc[0]["outcome.strength"])
        for value in sorted(set(strength)):
            chosen = each[:, strength == value]
            interval = statistics.bootstrap_interval(chosen if len(chosen) > 1 else chosen[0], seed=0)
            found = {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
            rows.append({"judge": str(judge), "strength": int(value), "n": chosen.shape[1], **found})
    return pd.DataFrame(rows)


def differences(file: Path, questions: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """For each two judges, the difference in agreement with its interval, over the pairs that both judged.

    Columns judge, against, n, estimate, low, high. A judge with several seeds counts by its mean over them.
    """
    parts = {str(judge): credit(winners(part)).mean(axis=0) for judge, part in runs(file).groupby("asked.judge")}
    rows = []
    for judge, against in questions:
        found = statistics.bootstrap_interval(parts[judge] - parts[against], seed=0)
        bounds = {"estimate": found.estimate, "low": found.low, "high": found.high}
        rows.append({"judge": judge, "against": against, "n": found.n, **bounds})
    return pd.DataFrame(rows)
