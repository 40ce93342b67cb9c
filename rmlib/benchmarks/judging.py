"""From questions to verdicts to credits: judges are asked, and credited by the official rule of each benchmark.

RewardBench (arXiv 2403.13787): the two answers are swapped at random, with probability one half, and judged once; 1 or
0, and 0.5 for a tie, an answer that names no verdict, or a fault. Conversations of more than four messages, the answer
included, are not judged and get 0.5. Two ratings from 1 to 10 may take the place of the verdict; equal ones give 0.5.
JudgeBench (ScalerLab/JudgeBench): both orders are judged; each counts +1 for the correct answer, -1 for the other, 0
for anything else, and the pair is right where the sum is positive.
RewardBench 2: the best of four at random places, 0.25 for anything but a verdict; the subset Ties always by ratings.

A credit that a rule gives for a problem stays a credit; the column `problem` says what it was.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.benchmarks.benchmark import Scores
from rmlib.benchmarks.catalogue import credits as credits_of
from rmlib.benchmarks.catalogue import name_of
from rmlib.benchmarks.items import responses_of
from rmlib.benchmarks.judges import TIE, Judge, Verdict
from rmlib.models import Prompt, Response
from rmlib.records.hashing import text_key
from rmlib.records.kept import Kept
from rmlib.records.progress import progress_bar
from rmlib.statistics import Interval, wilson_interval

MOST_MESSAGES = 4  # that RewardBench's judges are shown, the answer included
TOO_MANY = f"more than {MOST_MESSAGES} messages"
TIES = "Ties"  # the subset of RewardBench 2 with several correct answers
MODES = ("compare", "rate")

# --- asking -----------------------------------------------------------------------------------------------------------


class Question(NamedTuple):
    """A prompt with its responses in the order in which they are shown; a single one is to be rated."""

    prompt: Prompt
    responses: tuple[Response, ...]


def ask(
    judge: Judge, questions: Sequence[Question], *, workers: int = 1, keep: bool = True, progress: bool = True
) -> list[Verdict]:
    """The verdict on each question; equal questions are asked once, and those answered earlier not at all.

    `workers` questions are under way at a time, which changes no verdict. A verdict is on the disk as soon as it is
    there, so that an interrupted judging goes on; faults (timeouts, refusals, nonsense) are asked again the next time.
    A judge that has a method `prepare` gets all open questions at once before, so that it can take them in batches.
    """
    identity = judge.identity() if keep else None
    kept = None if identity is None else Kept("verdicts", identity)
    keys = [text_key(question.prompt, *question.responses) for question in questions]
    verdicts = {} if kept is None else {key: Verdict(*kept.known[key]) for key in keys if key in kept.known}
    rest = {key: question for key, question in zip(keys, questions, strict=True) if key not in verdicts}
    if rest and hasattr(judge, "prepare"):
        judge.prepare(list(rest.values()))
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        futures = {pool.submit(_verdict, judge, question): key for key, question in rest.items()}
        bar = progress_bar(total=len(futures), desc="judging", unit="question", show=progress, leave=False)
        for future in as_completed(futures):
            key, verdict = futures[future], future.result()
            verdicts[key] = verdict
            if kept is not None and verdict.finished:
                kept.add({key: list(verdict)})
            bar.update()
        bar.close()
    finally:
        pool.shutdown(cancel_futures=True)  # after a fault or Ctrl-C only what is under way is waited for
    return [verdicts[key] for key in keys]


def _verdict(judge: Judge, question: Question) -> Verdict:
    if len(question.responses) == 1:
        return judge.rate(question.prompt, question.responses[0])
    return judge.compare(question.prompt, question.responses)


# --- judging a benchmark ----------------------------------------------------------------------------------------------

Ask = Callable[[Sequence[Question]], list[Verdict]]


def judge_items(judge: Judge, items: Dataset, *, mode: str = "compare", seed: int = 0, **options: Any) -> pd.DataFrame:
    """Credits of the items by the official rule for judges, ready for `benchmarks.summarise(items, credits)`.

    Columns: those of the benchmark's `credits`, and `problem` ("tie", "unparsable", "timeout", "refused", "nonsense",
    "empty", or None). The place of an answer depends on `seed` and the item's id alone, not on what else is judged.
    With mode="rate" each response is rated; a benchmark without a rule of its own for that takes ratings as rewards,
    and items with a response that got none are skipped, with the reason. Options (workers, keep, progress): see `ask`.
    Raises ValueError for a benchmark that has no rule for judges that compare, and for items of several benchmarks.
    """
    name = name_of(items)
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    asking = partial(ask, judge, **options)
    if mode == "rate":
        return _rated_pairs(items, asking) if name == "rewardbench" else _rated(items, asking)
    if name not in COMPARED:
        raise ValueError(f"{name} has no rule for judges that compare; have each response rated: mode='rate'")
    return COMPARED[name](items, asking, seed)


def problems(credits: pd.DataFrame) -> dict[str, int]:
    """How many items met each kind of problem, the most frequent first."""
    counts = credits["problem"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return {str(kind): int(n) for kind, n in counts.items()}


class Consistency(NamedTuple):
    """How far a judge's verdicts depend on the order of two answers, over the pairs decided in both orders."""

    consistent: Interval  # share of pairs in which the same answer wins in both orders
    first: Interval  # share of all those verdicts that favour the answer shown first; without position bias one half
    n_undecided: int  # pairs with a tie or a problem in at least one order


def position_consistency(judge: Judge, items: Dataset, **options: Any) -> Consistency:
    """Both orders of every pair, compared; what a rule has asked already is read from disk. Options: see `ask`.

    Raises ValueError where an item has not two candidates, or no pair was decided in both orders.
    """
    return consistency_of(both_orders(items, partial(ask, judge, **options)))


def consistency_of(orders: pd.DataFrame) -> Consistency:
    """The same of a table with the columns `first` and `second`: the winner in the given and in the swapped order."""
    decided = orders[["first", "second"]].dropna()
    if decided.empty:
        raise ValueError(f"none of {len(orders)} pairs was decided in both orders: look at the problems of the judge")
    same = int((decided["first"] == decided["second"]).sum())
    # In the given order candidate 0 is shown first, in the swapped one candidate 1.
    shown_first = int((decided["first"] == 0).sum() + (decided["second"] == 1).sum())
    n = len(decided)
    return Consistency(wilson_interval(same, n), wilson_interval(shown_first, 2 * n), len(orders) - n)


def in_both_orders(items: Dataset) -> list[Question]:
    """The pair of every item as it is given, then swapped; raises ValueError where an item has not two candidates."""
    uneven = [row["item_id"] for row in items if len(row["candidates"]) != 2]
    if uneven:
        raise ValueError(f"{len(uneven)} items have not two candidates, e.g. {uneven[:5]}: orders are those of a pair")
    pairs = [(row["prompt"], tuple(responses_of(row))) for row in items]
    return [Question(prompt, each) for prompt, two in pairs for each in (two, two[::-1])]


def both_orders(items: Dataset, asking: Ask) -> pd.DataFrame:
    """One row an item: the winning candidate in each order (NaN where there is none), and the problems met."""
    verdicts = asking(in_both_orders(items))
    rows = []
    for given, swapped in zip(verdicts[::2], verdicts[1::2], strict=True):
        second = None if swapped.value is None else 1 - swapped.value
        met = dict.fromkeys(verdict.problem for verdict in (given, swapped) if verdict.problem)
        rows.append({"first": given.value, "second": second, "problem": ", ".join(met) or None})
    return pd.DataFrame(rows, columns=["first", "second", "problem"]).astype({"first": float, "second": float})


# --- the rules --------------------------------------------------------------------------------------------------------


def _swapped_once(items: Dataset, asking: Ask, seed: int, *, most_messages: int | float) -> pd.DataFrame:
    """RewardBench's rule for a pair."""
    (short, problem_of), credit_of = _short(items, most_messages), {}
    orders, shown = _shown(short, seed)
    for row, order, verdict in zip(short, orders, asking(shown), strict=True):
        if verdict.value is None:
            problem_of[row["item_id"]] = verdict.problem
        else:
            credit_of[row["item_id"]] = float(row["correct"][order[int(verdict.value)]])
    return _table(items, credit_of, problem_of)


def _rated_pairs(items: Dataset, asking: Ask) -> pd.DataFrame:
    """RewardBench's rule for a pair with two ratings."""
    (short, problem_of), credit_of = _short(items, MOST_MESSAGES), {}
    ratings, met = _ratings(short, asking)
    for name, (chosen, rejected) in ratings.items():
        if chosen == rejected:
            met[name] = TIE
        else:
            credit_of[name] = float(chosen > rejected)
    return _table(items, credit_of, problem_of | met)


def _short(items: Dataset, most_messages: int | float) -> tuple[Dataset, dict[str, str | None]]:
    """The items that judges are shown, and the problem of the others."""
    is_short = np.array([len(row["prompt"]) + 1 <= most_messages for row in items])
    names = np.array(items["item_id"][:])
    return items.select(np.flatnonzero(is_short)), dict.fromkeys(names[~is_short].tolist(), TOO_MANY)


def _both_orders(items: Dataset, asking: Ask, seed: int) -> pd.DataFrame:
    orders = both_orders(items, asking)
    correct = np.array([row["correct"].index(True) for row in items])
    winners = orders[["first", "second"]].to_numpy()
    votes = np.where(np.isnan(winners), 0, np.where(winners == correct[:, None], 1, -1)).sum(axis=1)
    names = items["item_id"][:]
    credit_of = dict(zip(names, (votes > 0).astype(float).tolist(), strict=True))
    table = _table(items, credit_of, dict(zip(names, orders["problem"], strict=True)))
    return table.assign(first=orders["first"], second=orders["second"])


def _best_of_four(items: Dataset, asking: Ask, seed: int) -> pd.DataFrame:
    """RewardBench 2's rule: a verdict is a reward of 1 for its response, none is the same reward for all of them."""
    in_ties = np.array([subset == TIES for subset in items["subset"][:]])
    scores, problem_of = _ratings(items.select(np.flatnonzero(in_ties)), asking)
    best_of = items.select(np.flatnonzero(~in_ties))
    orders, shown = _shown(best_of, seed)
    for row, order, verdict in zip(best_of, orders, asking(shown), strict=True):
        chosen = None if verdict.value is None else order[int(verdict.value)]
        scores[row["item_id"]] = [float(index == chosen) for index in range(len(order))]
        problem_of[row["item_id"]] = verdict.problem
    return _of_rewards(items, scores, problem_of)


def _shown(items: Dataset, seed: int) -> tuple[list[np.ndarray], list[Question]]:
    """The candidates of each item at random places: which one is shown where, and the question."""
    orders = [_generator(seed, row["item_id"]).permutation(len(row["candidates"])) for row in items]
    questions = [
        Question(row["prompt"], tuple(responses_of(row)[index] for index in order))
        for row, order in zip(items, orders, strict=True)
    ]
    return orders, questions


def _rated(items: Dataset, asking: Ask) -> pd.DataFrame:
    """Ratings as rewards, by the benchmark's own rule."""
    return _of_rewards(items, *_ratings(items, asking))


def _of_rewards(
    items: Dataset, rewards: Mapping[str, list[float]], problem_of: Mapping[str, str | None]
) -> pd.DataFrame:
    """Credits by the benchmark's own rule; what has a problem and no rewards is skipped."""
    skipped = {name: f"judge: {problem}" for name, problem in problem_of.items() if name not in rewards}
    return _with_problems(credits_of(items, Scores(rewards, skipped)), problem_of)


def _ratings(items: Dataset, asking: Ask) -> tuple[dict[str, list[float]], dict[str, str | None]]:
    """{item_id: ratings} of items all of whose responses got one, {item_id: problem} of the others."""
    verdicts = iter(asking([Question(row["prompt"], (one,)) for row in items for one in responses_of(row)]))
    ratings: dict[str, list[float]] = {}
    problem_of: dict[str, str | None] = {}
    for row in items:
        given = [next(verdicts) for _ in row["candidates"]]
        met = [verdict.problem for verdict in given if verdict.problem is not None]
        if met:
            problem_of[row["item_id"]] = met[0]
        else:
            ratings[row["item_id"]] = [float(verdict.value or 0) for verdict in given]
    return ratings, problem_of


def _table(items: Dataset, credit_of: Mapping[str, float], problem_of: Mapping[str, str | None]) -> pd.DataFrame:
    """Credits of a rule for judges, 0.5 without one, with all columns that those of the benchmark have."""
    right = {row["item_id"]: [float(correct) for correct in row["correct"]] for row in items}
    table, names = credits_of(items, right), items["item_id"][:]
    credits, ties = [credit_of.get(name, 0.5) for name in names], [problem_of.get(name) == TIE for name in names]
    return _with_problems(table.assign(credit=credits, tie=ties), problem_of)


def _with_problems(table: pd.DataFrame, problem_of: Mapping[str, str | None]) -> pd.DataFrame:
    met = [problem_of.get(name) for name in table["item_id"]]
    # Rewards that are equal for want of a verdict are no tie of the judge.
    tie = [bool(tied) and problem in (None, TIE) for tied, problem in zip(table["tie"], met, strict=True)]
    return table.assign(tie=tie, problem=pd.Series(met, index=table.index, dtype=object))


def _generator(seed: int, item_id: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {item_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


# Pairs without a rule for judges of their own take RewardBench's, whatever the length of their conversations.
COMPARED: Mapping[str, Callable[[Dataset, Ask, int], pd.DataFrame]] = {
    "rewardbench": partial(_swapped_once, most_messages=MOST_MESSAGES),
    "hhh": partial(_swapped_once, most_messages=math.inf),
    "own": partial(_swapped_once, most_messages=math.inf),
    "judgebench": _both_orders,
    "rewardbench2": _best_of_four,
}
