"""Aligned policies against the one that they started as, on test prompts, by several readers; one record each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from rmlib import records
from rmlib.alignment import best_of_n
from rmlib.alignment import win_rates as evaluation
from rmlib.alignment.plan import Plan, distinct_prompts, optimised, reward_of
from rmlib.alignment.titles import ANNOTATORS, BEST_OF_N, ENSEMBLE, ENSEMBLE_OF
from rmlib.alignment.win_rates import WinRate
from rmlib.benchmarks.judges import Judge
from rmlib.experiments.jobs import run_jobs
from rmlib.models import Prompt, Scorer
from rmlib.records.hashing import fingerprint

TRUTH, OWN, OTHER = "the truth", "its own reward", "another seed's reward"
SEED = 5_000  # of the answers that are compared


@dataclass(frozen=True)
class Answered:
    """Answers of a policy to test prompts under several seeds, and of the start; what did not end is counted."""

    prompts: list[Prompt]
    before: dict[int, list[str]]
    after: dict[int, list[str]]
    counts: dict[str, int]

    def lengths(self, of: dict[int, list[str]]) -> np.ndarray:
        """Characters of each answer, seed after seed."""
        return np.array([len(text) for texts in of.values() for text in texts], dtype=float)


def answered(plan: Plan, method: str, arm: str, seeds: Sequence[int], *, n_prompts: int, n: int = 16) -> Answered:
    """One answer to each of the first test prompts before and after; for best of n the best of `n` by the reward."""
    prompts = distinct_prompts(plan.splits.test)[:n_prompts]
    before, after, counts = {}, {}, {"samples": 0, "not ended": 0, "empty": 0}
    for seed in seeds:
        drawing: dict[str, Any] = {"max_new_tokens": plan.max_new_tokens, "seed": SEED + seed}
        before[seed] = best_of_n.kept_samples(plan.start, prompts, 1, **drawing).texts
        if method == BEST_OF_N:
            samples = best_of_n.kept_samples(plan.start, prompts, n, **drawing)
            proxy = best_of_n.distinct_scores(reward_of(plan, arm, seed), samples)
            after[seed] = best_of_n.best_of_n(samples, proxy)
        else:
            samples = optimised(plan, method, arm, seed).policy.sample(prompts, 1, **drawing)
            after[seed] = samples.texts
        counts = {name: counts[name] + count for name, count in samples.counts().items()}
    return Answered(prompts, before, after, counts)


def readers(plan: Plan, arm: str, seed: int) -> dict[str, Scorer]:
    """Who reads the answers of a run: the truth where there is one, the reward it was optimised on, and one it was not.

    The latter is the same arm under the next seed of the ensemble; of the ensemble itself, the member it left out.
    """
    found: dict[str, Scorer] = {} if plan.gold is None else {TRUTH: plan.gold}
    if arm == ANNOTATORS:
        return found | {OTHER: reward_of(plan, ENSEMBLE_OF, seed)}
    others = [other for other in plan.ensemble if other > seed] or [other for other in plan.ensemble if other != seed]
    other = reward_of(plan, ENSEMBLE_OF, seed) if arm == ENSEMBLE else reward_of(plan, arm, (others or [seed])[0])
    return found | {OWN: reward_of(plan, arm, seed), OTHER: other}


def win_rates(plan: Plan, method: str, arm: str, seeds: Sequence[int], *, n_prompts: int, n: int = 16) -> list[dict]:
    """Win rates of the last policies of all seeds by every reader, each recorded; computed once, then in runs/."""
    asked = {"method": method, "arm": arm, "comparison": plan.identity, "seeds": list(seeds), "prompts": n_prompts}
    asked |= {"n": n} if method == BEST_OF_N else {}
    rows = best_of_n.kept("win_rates", fingerprint(asked), partial(_rows, plan, method, arm, seeds, n_prompts, n))
    return [
        records.append(plan.file, kind="win_rate", asked=asked | {"reader": name}, outcome=row)
        for name, row in rows.items()
    ]


def run_all(
    policies: Sequence[tuple[str, str]],
    plan: Plan,
    seeds: Sequence[int],
    *,
    n_prompts: int,
    n: int = 16,
    processes: int | None = None,
) -> list[dict]:
    """`win_rates` of policies given as method and reward arm, several at a time. Raises JobFailed, which names one."""
    rates = partial(_win_rates, plan=plan, seeds=seeds, n_prompts=n_prompts, n=n)
    _ = plan.start  # once, not by two processes at a time
    run_jobs(dict.fromkeys(policies, ()), rates, processes=processes, show=", ".join)
    return [row for method, arm in policies for row in win_rates(plan, method, arm, seeds, n_prompts=n_prompts, n=n)]


def _win_rates(policy: tuple[str, str], plan: Plan, seeds: Sequence[int], n_prompts: int, n: int) -> None:
    win_rates(plan, *policy, seeds, n_prompts=n_prompts, n=n)


def _rows(plan: Plan, method: str, arm: str, seeds: Sequence[int], n_prompts: int, n: int) -> dict[str, Any]:
    """What a record holds, by reader."""
    texts = answered(plan, method, arm, seeds, n_prompts=n_prompts, n=n)
    given: dict[str, list[np.ndarray]] = {}
    for seed in seeds:
        for name, reader in readers(plan, arm, seed).items():
            scores = [reader.score(texts.prompts, of[seed]) for of in (texts.after, texts.before)]
            given.setdefault(name, []).append(evaluation.credits(*scores))
    further = {"prompts": len(texts.prompts), "seeds": len(seeds)} | texts.counts
    return {name: _win_rate(texts, np.concatenate(credits)).row() | further for name, credits in given.items()}


def judged(
    plan: Plan, judge: Judge, method: str, arm: str, seeds: Sequence[int], *, n_prompts: int, workers: int = 4
) -> dict[str, Any]:
    """The same by a judge that sees both orders, such as `judges.ChatJudge(Endpoint(url, model))`; recorded."""
    texts = answered(plan, method, arm, seeds, n_prompts=n_prompts)
    verdicts = [
        evaluation.judge_credits(judge, texts.prompts, texts.after[seed], texts.before[seed], workers=workers)
        for seed in seeds
    ]
    problems: dict[str, int] = {}
    for verdict in verdicts:
        for kind, count in verdict.problems.items():
            problems[kind] = problems.get(kind, 0) + count
    rate = _win_rate(texts, np.concatenate([verdict.credits for verdict in verdicts]))
    outcome = rate.row() | {"prompts": len(texts.prompts), "seeds": len(seeds), "problems": problems} | texts.counts
    asked = {"method": method, "arm": arm, "comparison": plan.identity, "seeds": list(seeds), "prompts": n_prompts}
    return records.append(plan.file, kind="win_rate", asked=asked | {"reader": judge.name}, outcome=outcome)


def _win_rate(texts: Answered, credits: np.ndarray) -> WinRate:
    groups = np.tile(np.arange(len(texts.prompts)), len(texts.after))
    return evaluation.win_rate(credits, texts.lengths(texts.after), texts.lengths(texts.before), groups)
