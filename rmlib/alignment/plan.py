"""Methods × reward arms × seeds on one source: what each run is made of, run or found again, one record a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from rmlib import combining, records
from rmlib.alignment import best_of_n, methods
from rmlib.alignment.align import align
from rmlib.alignment.fine_tuning import FitSettings, answers_of, simulated_answers, starting_policy
from rmlib.alignment.loop import Alignment, Task, Watch
from rmlib.alignment.policies import Policy, Samples
from rmlib.alignment.settings import AlignSettings
from rmlib.alignment.titles import ANNOTATORS, BEST_OF_N, ENSEMBLE, ENSEMBLE_OF, EXPO
from rmlib.combining import PAPER_FACTOR, Ensemble
from rmlib.experiments import arm_models
from rmlib.experiments.arms import Job as ArmJob
from rmlib.experiments.jobs import run_jobs
from rmlib.experiments.presets import Preset
from rmlib.experiments.recording import comparison_of
from rmlib.experiments.scoring import scalar_model
from rmlib.models import Prompt, RewardModel, Scorer
from rmlib.records import paths
from rmlib.records.hashing import fingerprint, prompt_key
from rmlib.records.kept import kept_json
from rmlib.sources.simulated.gold import Gold
from rmlib.sources.splits import Splits

SAMPLES = "samples"  # a job of its own, where several read the same
DPO_LOSSES = {"dpo": "bradley_terry", "dpo_margin": "margin_bradley_terry", "dpo_scaled": "scaled_bradley_terry"}
Job = tuple[str, str, int]  # method, reward arm, seed


@dataclass(frozen=True)
class Plan:
    """What all runs share: pairs, reward models, the starting policy, prompts and settings."""

    splits: Splits
    rewards: Preset
    settings: dict[str, AlignSettings]  # by method: reinforce, ppo, dpo
    policy: str = "embedded"  # or a hub id or folder of a causal language model
    fit: FitSettings = field(default_factory=FitSettings)
    n_fitted: int = 16_000  # simulated prompts, two answers each, that the embedded policy is fitted to
    n_watched: int = 128  # prompts of the selection split on which curves are read
    samples_watched: int = 2
    every_steps: int = 10
    n_best: int = 64  # samples a prompt for best of n
    n_labelled: int = 500  # prompts whose samples a reward labels for DPO
    ensemble: tuple[int, ...] = (0, 1, 2, 3, 4)
    max_new_tokens: int = 40

    @cached_property
    def start(self) -> Policy:
        """The starting policy: at the embedded scale fitted to simulated answers (or the pairs'), else loaded."""
        if self.policy != "embedded":
            return Policy.create(self.policy)
        if self.gold is None:
            return starting_policy(answers_of(self.splits.train), self.fit)
        unseen = [prompt for part in (self.splits.selection, self.splits.test) for prompt in part["prompt"][:]]
        return starting_policy(simulated_answers(self.n_fitted, seed=self.fit.seed + 1, leave_out=unseen), self.fit)

    @cached_property
    def prompts(self) -> list[Prompt]:
        """Those that are optimised on: of the training pairs, each once."""
        return distinct_prompts(self.splits.train)

    @cached_property
    def watched(self) -> list[Prompt]:
        """Those on which curves are read: of the selection split, unseen by policies and reward models."""
        return distinct_prompts(self.splits.selection)[: self.n_watched]

    @property
    def gold(self) -> Gold | None:
        """The truth, of simulated prompts alone."""
        return Gold() if self.splits.source.name == "simulated" else None

    @property
    def file(self) -> Path:
        """Where records go."""
        line = paths.line_name(self.splits.source.name, self.rewards.backbone)
        return paths.results_dir() / f"{line}_alignment.jsonl"

    @property
    def identity(self) -> str:
        """The name that the runs of a comparison share."""
        shared = {method: settings.to_dict() for method, settings in sorted(self.settings.items())}
        sizes = ("n_fitted", "n_watched", "samples_watched", "every_steps", "n_best", "n_labelled", "max_new_tokens")
        rest = [getattr(self, name) for name in sizes]
        named = self.policy if self.policy == "embedded" else paths.public_name(self.policy)
        rewards = comparison_of(self.rewards, self.splits)
        return fingerprint("alignment", rewards, named, asdict(self.fit), shared, rest, list(self.ensemble))


def distinct_prompts(pairs: Dataset) -> list[Prompt]:
    """The prompts of a table in its order, each once."""
    return list({prompt_key(prompt): prompt for prompt in pairs["prompt"][:]}.values())


def reward_of(plan: Plan, arm: str, seed: int) -> Scorer:
    """The reward model of an arm under a seed, trained now where notebook 02 or 03 has not.

    `expo` walks from regression past scaled BT by the paper's factor, where the arm bt_scaled_init_expo takes the one
    that orders the selection pairs best. The ensemble of a seed holds the other seeds of `plan.ensemble`, so that seeds
    differ in more than the policy's.
    """
    models = [arm_models.model_of(name, plan.rewards, plan.splits, of) for name, of in _models_of(plan, arm, seed)]
    if arm == EXPO:
        return combining.extrapolate(models[0], models[1], PAPER_FACTOR)
    if arm != ENSEMBLE:
        return scalar_model(models[0])
    part = plan.splits.selection.select(range(min(200, len(plan.splits.selection))))
    return Ensemble.fit([scalar_model(model) for model in models], part["prompt"][:], part["response_1"][:])


def _models_of(plan: Plan, arm: str, seed: int) -> list[ArmJob]:
    """The reward models that a reward is made of; those who order pairs themselves are watched by one."""
    if arm == EXPO:
        return [("regression", seed), (ENSEMBLE_OF, seed)]
    if arm == ENSEMBLE:
        return [(ENSEMBLE_OF, other) for other in plan.ensemble if other != seed] or [(ENSEMBLE_OF, seed)]
    return [(ENSEMBLE_OF if arm == ANNOTATORS else arm, seed)]


def optimised(plan: Plan, method: str, arm: str, seed: int) -> Alignment:
    """The optimisation of a method under a reward and a seed, run now or found."""
    reward = reward_of(plan, arm, seed)
    scorers = {"proxy": reward} | ({} if plan.gold is None else {"gold": plan.gold})
    watch = Watch(plan.watched, scorers, plan.every_steps, plan.samples_watched)
    if method in DPO_LOSSES:
        settings = plan.settings["dpo"].change(seed=seed, loss=DPO_LOSSES[method])
        if arm == ANNOTATORS:
            pairs = methods.annotated(plan.splits.train)
        else:
            pairs = methods.labelled(_samples("dpo", plan, seed), reward)
        return align(plan.start, settings, Task(pairs=pairs, watch=watch), progress=False)
    critic = None
    if method == "ppo" and not isinstance(reward, RewardModel):
        critic = scalar_model(arm_models.model_of(ENSEMBLE_OF, plan.rewards, plan.splits, seed))
    task = Task(reward, plan.prompts, critic=critic, watch=watch)
    return align(plan.start, plan.settings[method].change(seed=seed), task, progress=False)


def record_run(job: Job, plan: Plan) -> dict[str, Any]:
    """Run a job or find it, and write its record: one row a measurement, with the gold of every watched prompt."""
    method, arm, seed = job
    asked = {"method": method, "arm": arm, "comparison": plan.identity, "source": asdict(plan.splits.source)}
    asked["policy"] = paths.public_name(plan.policy)
    started = time.perf_counter()
    if method == BEST_OF_N:
        file = paths.runs_dir() / BEST_OF_N / f"{fingerprint(plan.identity, *job)}.json"
        rows, settings = kept_json(file, partial(_best_of_n_rows, plan, arm, seed)), {}
    else:
        run = optimised(plan, method, arm, seed)
        rows, settings = run.measured, run.settings.to_dict()
    # Of the proxy the mean alone, since only differences in gold are tested.
    thin = [{**row, "proxy": float(np.mean(row["proxy"]))} for row in rows]
    outcome = {"rows": thin, "settings": settings}
    seconds = time.perf_counter() - started
    return records.append(plan.file, kind="alignment", asked=asked, outcome=outcome, seconds=seconds, seed=seed)


def _samples(of: str, plan: Plan, seed: int) -> Samples:
    """Those of which best of n takes the best, or those that a reward labels for DPO."""
    if of == BEST_OF_N:
        prompts, n, offset = plan.watched, plan.n_best, 1000
    else:
        prompts, n, offset = plan.prompts[: plan.n_labelled], plan.settings["dpo"].samples_per_prompt, 0
    return best_of_n.kept_samples(plan.start, prompts, n, max_new_tokens=plan.max_new_tokens, seed=offset + seed)


def _best_of_n_rows(plan: Plan, arm: str, seed: int) -> list[dict[str, Any]]:
    samples = _samples(BEST_OF_N, plan, seed)
    proxy = best_of_n.distinct_scores(reward_of(plan, arm, seed), samples)
    scores = {"length": np.array([len(text) for text in samples.texts], dtype=float).reshape(proxy.shape)}
    if plan.gold is not None:
        scores["gold"] = best_of_n.distinct_scores(plan.gold, samples)
    rows = best_of_n.curve(samples, proxy, scores)
    spread = float(proxy.std(axis=1, ddof=1).mean())
    counts = {f"n {name}": count for name, count in samples.counts().items()}
    return [row | counts | {"length": float(np.mean(row["length"])), "proxy_sd": spread} for row in rows]


def run_all(jobs: Sequence[Job], plan: Plan, *, processes: int | None = None) -> list[dict[str, Any]]:
    """Every job, several at a time; what is finished is found. What several jobs need is made before, once.

    Raises JobFailed, which names the job; what was finished is kept.
    """
    records.append(plan.file, kind="alignment_comparison", asked={}, outcome={"comparison": plan.identity})
    _ = plan.start
    models = {model for _, arm, seed in jobs for model in _models_of(plan, arm, seed)}
    missing = arm_models.missing(sorted(models), plan.rewards, plan.splits, tested=False)
    run_jobs(missing, partial(_train, plan=plan), processes=processes, show=lambda job: f"{job[0]}, seed {job[1]}")
    waiting: dict[Job, list[Job]] = {job: _waits_for(job) for job in jobs}
    waiting |= {drawn: [] for others in list(waiting.values()) for drawn in others}
    run_jobs(waiting, partial(_record, plan=plan), processes=processes, show=lambda job: ", ".join(map(str, job)))
    return [record_run(job, plan) for job in jobs]


def _waits_for(job: Job) -> list[Job]:
    """The samples that a job shares with others, which one process draws for all."""
    method, arm, seed = job
    if method == BEST_OF_N:
        return [(SAMPLES, BEST_OF_N, seed)]
    return [(SAMPLES, "dpo", seed)] if method in DPO_LOSSES and arm != ANNOTATORS else []


def _train(job: ArmJob, plan: Plan) -> None:
    arm_models.obtain(job[0], plan.rewards, plan.splits, job[1])


def _record(job: Job, plan: Plan) -> None:
    method, of, seed = job
    if method == SAMPLES:
        _samples(of, plan, seed)
    else:
        record_run(job, plan)
