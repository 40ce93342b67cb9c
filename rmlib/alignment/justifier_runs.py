"""The justifiers of a comparison: trained, or found, and their words on the judged pairs written, two at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from datasets import Dataset

from rmlib.alignment import justifier_results
from rmlib.alignment.justifier import Justifications, Justifier, examples
from rmlib.alignment.justifier_training import FineTuning, Tuned, fine_tune, on_reward_model
from rmlib.alignment.policies import Policy
from rmlib.experiments import arm_models
from rmlib.experiments.jobs import run_jobs
from rmlib.experiments.presets import Preset
from rmlib.models import RewardModel, backbones
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
    run_jobs(dict.fromkeys(jobs, ()), partial(_run, plan=plan), processes=processes or None, show=_shown)
    return {job: justifier_of(job, plan) for job in jobs}


def _run(job: Job, plan: Plan) -> None:
    _, judge = justifier_of(job, plan)
    justifier_results.written(judge, plan.items)


def _shown(job: Job) -> str:
    return f"{job[0]}, seed {job[1]}"
