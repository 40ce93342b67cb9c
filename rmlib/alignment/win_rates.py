"""Is an aligned policy better than the one it started as? Win rates on test prompts, at equal length too.

Those who read the answers are scorers (the truth, the reward that was optimised, another) or judges.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import ArrayLike

from rmlib import records, statistics
from rmlib.alignment import best_of_n
from rmlib.alignment.plan import Plan, distinct_prompts, optimised, reward_of
from rmlib.alignment.titles import ANNOTATORS, BEST_OF_N, ENSEMBLE, ENSEMBLE_OF
from rmlib.benchmarks.judges import Judge
from rmlib.benchmarks.judging import ask, both_orders
from rmlib.benchmarks.judging import problems as problems_of
from rmlib.experiments.jobs import run_jobs
from rmlib.models import AsGiven, Prompt, Scorer
from rmlib.records import paths
from rmlib.records.hashing import fingerprint
from rmlib.records.kept import kept_json
from rmlib.statistics import Interval

logger = logging.getLogger(__name__)
TRUTH, OWN, OTHER = "the truth", "its own reward", "another seed's reward"
SEED = 5_000  # of the answers that are compared
BOOTSTRAP_SEED = 0


class WinRate(NamedTuple):
    """How often one answer beats another to the same prompt, and how long both are, which belongs beside it.

    At equal length it is what a logistic regression predicts; None where all are, or too few answers determine it.
    """

    rate: Interval  # ties half
    equal_length: Interval | None
    ties: float  # share, identical answers among them
    length: float  # mean characters
    length_before: float

    def row(self) -> dict[str, Any]:
        """As a record or a table holds it."""
        row: dict[str, Any] = {}
        for title, found in (("win rate", self.rate), ("at equal length", self.equal_length)):
            if found is not None:
                row |= {title: found.estimate, f"{title} low": found.low, f"{title} high": found.high}
        return row | {
            "ties": self.ties, "length": self.length, "length before": self.length_before, "n": self.rate.n,
        }  # fmt: skip


def win_rate(
    credit: ArrayLike, length: ArrayLike, length_before: ArrayLike, groups: ArrayLike | None = None
) -> WinRate:
    """Win rates of credits `[item]`: 1 for a win, 0 for a loss, 1/2 for a tie; lengths in characters.

    `groups`, a label an item, are redrawn together in the intervals: answers to one prompt under several seeds. At
    equal length a tie counts as half a win and half a loss (`statistics.length_controlled_accuracy`, after AlpacaEval
    2, arXiv 2404.04475). Raises ValueError for other credits, and lengths of other items.
    """
    given, new, old = (np.asarray(values, dtype=float) for values in (credit, length, length_before))
    if not np.isin(given, (0, 0.5, 1)).all() or given.ndim != 1 or not given.size:
        raise ValueError("credits must be one or more of 0, 1/2 and 1, one an item")
    if new.shape != given.shape or old.shape != given.shape:
        raise ValueError(f"{len(given)} credits, but lengths of shape {new.shape} and {old.shape}")
    labels = np.arange(len(given)) if groups is None else np.asarray(groups)
    rate = statistics.bootstrap_interval(given, seed=BOOTSTRAP_SEED, groups=labels)
    equal = _at_equal_length(given, new - old, labels) if (new != old).any() else None
    return WinRate(rate, equal, float((given == 0.5).mean()), float(new.mean()), float(old.mean()))


def _at_equal_length(
    credit: Float[np.ndarray, "item"], difference: Float[np.ndarray, "item"], groups: np.ndarray
) -> Interval | None:
    halves = np.stack([credit > 0.25, credit > 0.75], axis=1).astype(int).ravel()  # a tie: once won, once lost
    twice, labels = np.repeat(difference, 2), np.repeat(groups, 2)
    try:
        found = statistics.length_controlled_accuracy(halves, twice, seed=BOOTSTRAP_SEED, groups=labels)
    except RuntimeError as error:  # a handful of answers whose lengths alone tell who won
        logger.warning("no win rate at equal length: %s", error)
        return None
    return Interval(found.estimate, found.low, found.high, len(credit))


def credits(new: ArrayLike, before: ArrayLike) -> Float[np.ndarray, "item"]:
    """1 where the new score is higher, 0 where it is lower, 1/2 where they are equal. Raises ValueError for a NaN."""
    one, other = np.asarray(new, dtype=float), np.asarray(before, dtype=float)
    if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError(f"scores of shape {one.shape} and {other.shape} must be the same items', and finite numbers")
    return 0.5 + 0.5 * np.sign(one - other)


def judge_credits(
    judge: Judge, prompts: Sequence[Prompt], new: Sequence[str], before: Sequence[str], *, workers: int = 1,
    progress: bool = True,
) -> tuple[Float[np.ndarray, "item"], dict[str, int]]:  # fmt: skip
    """Both orders of each two answers are judged: a win in both is 1, in one 1/2; a tie or no verdict counts half.

    Where one order is won and the other undecided, the answer that won gets the point. Problems that the judge met with
    are counted by kind.
    """
    rows = [
        {"item_id": str(index), "prompt": [dict(message) for message in prompt], "candidates": list(two)}
        for index, (prompt, *two) in enumerate(zip(prompts, new, before, strict=True))
    ]
    orders = both_orders(Dataset.from_list(rows), partial(ask, judge, workers=workers, progress=progress))
    points = sum(np.sign(0.5 - orders[name].fillna(0.5).to_numpy()) for name in ("first", "second"))
    return 0.5 + 0.5 * np.sign(points), problems_of(orders)


# --- the policies of a plan -------------------------------------------------------------------------------------------


class Answered(NamedTuple):
    """Answers of a policy to test prompts under each seed, and of the start; what did not end is counted."""

    prompts: list[Prompt]
    before: list[list[str]]
    after: list[list[str]]
    counts: dict[str, int]


def answered(plan: Plan, method: str, arm: str, seeds: Sequence[int], *, n_prompts: int, n: int = 16) -> Answered:
    """One answer to each of the first test prompts before and after; for best of n the best of `n` by the reward."""
    prompts = distinct_prompts(plan.splits.test)[:n_prompts]
    before, after, counts = [], [], Counter[str]()
    for seed in seeds:
        drawing: dict[str, Any] = {"max_new_tokens": plan.max_new_tokens, "seed": SEED + seed}
        before.append(best_of_n.kept_samples(plan.start, prompts, 1, **drawing).texts)
        if method == BEST_OF_N:
            samples = best_of_n.kept_samples(plan.start, prompts, n, **drawing)
            proxy = best_of_n.distinct_scores(reward_of(plan, arm, seed), samples)
            after.append(best_of_n.best_of_n(samples, proxy))
        else:
            samples = optimised(plan, method, arm, seed).policy.sample(prompts, 1, **drawing)
            after.append(samples.texts)
        counts.update(samples.counts())
    return Answered(prompts, before, after, dict(counts))


def readers(plan: Plan, arm: str, seed: int) -> dict[str, Scorer]:
    """Who reads the answers of a run: the truth where there is one, the reward it was optimised on, and one it was not.

    The latter is the same arm under the next seed of the ensemble; of the ensemble itself, the member it left out.
    """
    found: dict[str, Scorer] = {} if plan.gold is None else {TRUTH: plan.gold}
    if arm == ANNOTATORS:
        return found | {OTHER: reward_of(plan, arm, seed)}
    others = [other for other in plan.ensemble if other > seed] or [other for other in plan.ensemble if other != seed]
    other = reward_of(plan, ENSEMBLE_OF, seed) if arm == ENSEMBLE else reward_of(plan, arm, (others or [seed])[0])
    return found | {OWN: reward_of(plan, arm, seed), OTHER: other}


def win_rates(
    policy: tuple[str, str], plan: Plan, seeds: Sequence[int], *, n_prompts: int, n: int = 16
) -> list[dict[str, Any]]:
    """Of a method's last policies under a reward arm, by every reader, each recorded; computed once, then in runs/."""
    method, arm = policy
    asked = _asked(plan, method, arm, seeds, n_prompts) | ({"n": n} if method == BEST_OF_N else {})

    def read() -> dict[str, Any]:
        texts = answered(plan, method, arm, seeds, n_prompts=n_prompts, n=n)
        given: dict[str, list[np.ndarray]] = {}
        for seed, *two in zip(seeds, texts.after, texts.before, strict=True):
            for name, reader in readers(plan, arm, seed).items():
                new, before = (reader.score(texts.prompts, AsGiven(answers)) for answers in two)
                given.setdefault(name, []).append(credits(new, before))
        return {name: _outcome(texts, parts) for name, parts in given.items()}

    rows = kept_json(paths.runs_dir() / "win_rates" / f"{fingerprint(asked)}.json", read).items()
    return [records.append(plan.file, kind="win_rate", asked=asked | {"reader": by}, outcome=row) for by, row in rows]


def run_all(
    policies: Sequence[tuple[str, str]], plan: Plan, seeds: Sequence[int], *, n_prompts: int, n: int = 16,
    processes: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """`win_rates` of policies given as method and reward arm, several at a time. Raises JobFailed, which names one."""
    rates = partial(win_rates, plan=plan, seeds=seeds, n_prompts=n_prompts, n=n)
    _ = plan.start  # once, not by two processes at a time
    run_jobs(dict.fromkeys(policies, ()), rates, processes=processes, show=", ".join)
    return [row for policy in policies for row in rates(policy)]


def judged(
    plan: Plan, judge: Judge, method: str, arm: str, seeds: Sequence[int], *, n_prompts: int, workers: int = 4
) -> dict[str, Any]:
    """The same by a judge that sees both orders, such as `judges.ChatJudge(Endpoint(url, model))`; recorded."""
    texts = answered(plan, method, arm, seeds, n_prompts=n_prompts)
    two = zip(texts.after, texts.before, strict=True)
    given, met = zip(*(judge_credits(judge, texts.prompts, *each, workers=workers) for each in two), strict=True)
    outcome = _outcome(texts, given, problems=sum(map(Counter, met), Counter[str]()))
    asked = _asked(plan, method, arm, seeds, n_prompts) | {"reader": judge.name}
    return records.append(plan.file, kind="win_rate", asked=asked, outcome=outcome)


def _asked(plan: Plan, method: str, arm: str, seeds: Sequence[int], n_prompts: int) -> dict[str, Any]:
    return {"method": method, "arm": arm, "comparison": plan.identity, "seeds": list(seeds), "prompts": n_prompts}


def _outcome(texts: Answered, credits: Sequence[np.ndarray], **further: Any) -> dict[str, Any]:
    """What a record holds of a reader's credits, an array a seed."""
    groups = np.tile(np.arange(len(texts.prompts)), len(texts.after))
    after, before = ([len(text) for of_seed in of for text in of_seed] for of in (texts.after, texts.before))
    rate = win_rate(np.concatenate(credits), after, before, groups)
    return rate.row() | {"prompts": len(texts.prompts), "seeds": len(texts.after)} | further | texts.counts
