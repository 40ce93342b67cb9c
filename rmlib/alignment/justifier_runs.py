"""The justifiers of a comparison, trained or found, what they write about held-out pairs, and records of it.

A record of kind "pairwise_judge", one for each judge (and seed of a justifier):

    asked     judge (its name), about (how it came about), source, items (a hash of them), n
    outcome   first, second: the winner when the preferred response is shown first and when it is shown second, 0 for
              the preferred one, 1 for the other, None without a verdict; problems (number of verdicts by kind),
              strength (of each pair's preference), words (mean number written), training (of a justifier)

Tables and figures of these records are in `rmlib.figures.justifier`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib import records
from rmlib.alignment.fine_tuning import FineTuning, Tuned, fine_tune, on_reward_model
from rmlib.alignment.justifier import Justifications, Justifier, examples, verdict_of
from rmlib.alignment.policies import Policy
from rmlib.benchmarks.judges import TIE, Judge
from rmlib.benchmarks.judging import Question, ask, both_orders
from rmlib.benchmarks.scoring import score
from rmlib.experiments import arm_models
from rmlib.experiments.jobs import run_jobs
from rmlib.experiments.presets import Preset
from rmlib.models import RewardModel, Scorer, backbones
from rmlib.records.hashing import fingerprint
from rmlib.sources import SourceInfo
from rmlib.sources.simulated import reasons
from rmlib.sources.splits import Splits

VARIANTS = {"reasons, then statement": True, "statement alone": False}
Job = tuple[str, int]  # of VARIANTS, and a seed


@dataclass(frozen=True)
class Plan:
    """What all justifiers of a comparison share.

    `reward_arm`: whose model of the same seed the embedded decoder starts from, grown by some layers and heads, since
    it has never read a sentence; any other backbone starts from its own weights.
    """

    splits: Splits
    settings: Preset
    taught: Mapping[str, Justifications]  # the examples of each variant (`teach`)
    items: Dataset  # the pairs that are judged
    tuning: FineTuning
    reward_arm: str
    new_layers: int = 1
    new_heads: int = 1
    max_new_tokens: int = 256  # of an answer; a longer one is cut

    def reward_model(self, seed: int) -> RewardModel:
        """The reward model of a seed, trained where it is not yet."""
        return arm_models.model_of(self.reward_arm, self.settings, self.splits, seed)

    def start(self, seed: int) -> Policy:
        """The policy before fine-tuning."""
        if self.settings.backbone != backbones.EMBEDDED:
            return Policy.create(self.settings.backbone)
        model = self.reward_model(seed)
        return on_reward_model(model, new_layers=self.new_layers, new_heads=self.new_heads, seed=seed)


def teach(pairs: Dataset) -> dict[str, Justifications]:
    """The examples of each variant, in both orders. Raises ValueError where no annotation is one."""
    taught = {variant: examples(pairs, both_orders=True, reasons=reasons) for variant, reasons in VARIANTS.items()}
    for variant, found in taught.items():
        if not len(found.rows):
            raise ValueError(f"{variant}: no annotation is an example; left out: {found.left_out or 'there are none'}")
    return taught


def justifier_of(job: Job, plan: Plan) -> tuple[Tuned, Justifier]:
    """One justifier, trained now where it is not yet; errors as `fine_tune` and `Plan.start`."""
    variant, seed = job
    tuned = fine_tune(plan.start(seed), plan.taught[variant].rows, replace(plan.tuning, seed=seed))
    return tuned, Justifier(tuned.policy, max_new_tokens=plan.max_new_tokens)


def run_all(plan: Plan, seeds: Iterable[int], *, processes: int | None = None) -> dict[Job, tuple[Tuned, Justifier]]:
    """Every variant under every seed; what was finished before is found, text by text. Raises JobFailed."""
    jobs = [(variant, seed) for seed in seeds for variant in VARIANTS]
    for seed in dict.fromkeys(seed for _, seed in jobs):
        plan.reward_model(seed)  # once, not by two processes at a time
    run_jobs(
        dict.fromkeys(jobs, ()),
        partial(_run, plan=plan),
        processes=processes,
        show=lambda job: f"{job[0]}, seed {job[1]}",
    )
    return {job: justifier_of(job, plan) for job in jobs}


def _run(job: Job, plan: Plan) -> None:
    _, judge = justifier_of(job, plan)
    written(judge, plan.items)


# --- judging held-out pairs -------------------------------------------------------------------------------------------


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
    rewards = score(scorer, items, progress=False)
    margins = np.array([rewards[name][0] - rewards[name][1] for name in items["item_id"]])
    winner = np.where(margins > 0, 0.0, np.where(margins < 0, 1.0, np.nan))
    problem = pd.array([TIE if margin == 0 else None for margin in margins], dtype=object)
    return outcome_of(items, pd.DataFrame({"first": winner, "second": winner, "problem": problem}))


def outcome_of(items: Dataset, orders: pd.DataFrame) -> dict[str, Any]:
    """What a record keeps of `judging.both_orders`."""
    both = ["first", "second"]
    values = {order: [None if np.isnan(value) else int(value) for value in orders[order]] for order in both}
    problems: Counter[str] = Counter()
    for met, missing in zip(orders["problem"], orders[both].isna().sum(axis=1), strict=True):
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
    records.append(file, kind="pairwise_judge", asked=asked, outcome=outcome, seed=seed)
