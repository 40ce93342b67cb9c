"""The loop that all methods share: steps, log, what is measured on the way, checkpoints, the best policy so far.

Several processes share the prompts of each step: each draws, reads and differentiates its own, gradients are summed,
and the policies stay equal. The first one measures and writes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import nn

from rmlib.alignment.estimators import PerToken
from rmlib.alignment.policies import Policy, Samples, valid_tokens
from rmlib.alignment.rewards import AlignmentError, reward_identity, scores_of
from rmlib.alignment.settings import AlignSettings
from rmlib.models import Prompt, Response, RewardModel, Scorer
from rmlib.records.files import write_json, written_whole
from rmlib.records.hashing import fingerprint, prompt_key
from rmlib.records.progress import progress_bar
from rmlib.training import checkpoints
from rmlib.training.loop import scheduler_for
from rmlib.training.parallel import ALONE, Processes
from rmlib.training.runs import FINISHED_FILE, LOG_FILE, RunFolder, append_row, cut_log, read_log

POLICY_FOLDER, BEST_FOLDER = "policy", "best"


@dataclass
class Alignment(RunFolder):
    """A finished optimisation: its folder and settings; policies are read from the folder."""

    settings: AlignSettings

    @cached_property
    def policy(self) -> Policy:
        """The policy after the last step."""
        return Policy.create(str(self.folder / POLICY_FOLDER))

    @property
    def history(self) -> pd.DataFrame:
        """One row a step: rewards of what was sampled, losses, counts of what did not end or was empty."""
        return super().history.drop(columns="watched", errors="ignore")

    @property
    def measured(self) -> list[dict[str, Any]]:
        """What was measured, the start first: a row for each time (`Watch.measure`), with its `step`."""
        return [row["watched"] | {"step": row["step"]} for row in read_log(self.folder) if "watched" in row]


@dataclass(frozen=True)
class Watch:
    """Prompts that are answered every so many steps, and the scorers that read the answers, by name.

    The scorer called "proxy" is the reward that is optimised; by its mean the best checkpoint is chosen.
    """

    prompts: Sequence[Prompt]
    scorers: Mapping[str, Scorer] = field(default_factory=dict)
    every_steps: int = 10
    samples_per_prompt: int = 1
    seed: int = 1_000_003

    @property
    def identity(self) -> str:
        """Of what is measured."""
        prompts = [prompt_key(prompt) for prompt in self.prompts]
        scorers = {name: reward_identity(scorer) for name, scorer in self.scorers.items()}
        return fingerprint("watch", prompts, scorers, self.every_steps, self.samples_per_prompt, self.seed)

    def measure(self, policy: Policy, origin: Policy, *, max_new_tokens: int) -> dict[str, Any]:
        """One row: `divergence` from the origin in nats a response, means and lists of scores, length, counts."""
        samples = policy.sample(self.prompts, self.samples_per_prompt, max_new_tokens=max_new_tokens, seed=self.seed)
        row: dict[str, Any] = {f"n {name}": count for name, count in samples.counts().items()}
        row["length"] = float(np.mean([len(text) for text in samples.texts]))
        row["tokens"] = float(samples.n_tokens.mean())
        row["divergence"], row["divergence_se"] = divergence(policy, origin, samples)
        for name, scorer in self.scorers.items():
            values = scores_of(scorer, samples.repeated_prompts, samples.texts)
            table = values.reshape(len(self.prompts), -1)
            row[name] = [round(float(value), 4) for value in table.mean(axis=1)]
            if self.samples_per_prompt > 1:  # of answers to one prompt: rewards compare nothing else
                row[f"{name}_sd"] = float(table.std(axis=1, ddof=1).mean())
        return row


class PreferencePairs(NamedTuple):
    """What DPO learns from."""

    prompts: Sequence[Prompt]
    chosen: Sequence[Response]
    rejected: Sequence[Response]
    strength: Float[np.ndarray, "pair"]

    @property
    def identity(self) -> str:
        keys = [prompt_key(prompt) for prompt in self.prompts]
        return fingerprint("pairs", keys, list(self.chosen), list(self.rejected), self.strength.tolist())


@dataclass(frozen=True)
class Task:
    """What a policy learns from: DPO from `pairs`, REINFORCE and PPO from a `reward` of answers to `prompts`.

    PPO's value model starts as the `critic`, or as the reward where that is a RewardModel with the policy's tokens.
    """

    reward: Scorer | None = None
    prompts: Sequence[Prompt] = ()
    pairs: PreferencePairs | None = None
    critic: RewardModel | None = None
    watch: Watch | None = None

    @property
    def identity(self) -> list[Any]:
        """What a run's name says of it."""
        rewarded = None if self.reward is None else reward_identity(self.reward)
        valued, learnt, measured = (
            None if one is None else one.identity for one in (self.critic, self.pairs, self.watch)
        )
        return [[rewarded, valued], [prompt_key(prompt) for prompt in self.prompts], learnt, measured]


@torch.no_grad()
def divergence(policy: Policy, origin: Policy, samples: Samples) -> tuple[float, float]:
    """KL divergence of the policy from the origin, in nats a response, from the policy's own samples; standard error.

    The mean over responses of `log pi(y|x) - log pi_origin(y|x)`, summed over tokens: unbiased, and noisy where the two
    are far apart. A response that was cut short counts up to there.
    """
    valid = valid_tokens(samples).to(policy.device)
    difference = policy.log_probabilities(samples) - origin.log_probabilities(samples)
    total = torch.where(valid, difference, 0.0).sum(dim=1).double()
    return float(total.mean()), float(total.std() / len(total) ** 0.5) if len(total) > 1 else 0.0


class Learner(nn.Module):
    """A copy of a policy under training, held against what it started as; a method adds `update`, a step or a few.

    Raises AlignmentError where the prompts of a step cannot be dealt evenly to the processes.
    """

    def __init__(self, start: Policy, settings: AlignSettings, processes: Processes = ALONE) -> None:
        super().__init__()
        self.settings, self.policy, self.processes = settings, start.copy(), processes
        if settings.prompts_per_step % processes.size:
            dealt = f"{settings.prompts_per_step} prompts a step cannot be dealt evenly to {processes.size} processes"
            raise AlignmentError(f"{dealt}: choose another prompts_per_step")
        self.reference = start
        if settings.lora_rank:
            self.policy.adapt(settings.lora_rank, seed=settings.seed)
        else:
            self.policy.network.requires_grad_(True)
        self.network = self.policy.network

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer moves, each with its learning rate."""
        return [{"params": [weight for weight in self.network.parameters() if weight.requires_grad]}]

    def update(self, step: int) -> dict[str, Any]:
        """One step of the method; a row for the log."""
        raise NotImplementedError

    def own(self, step: int, n: int) -> list[int]:
        """Those of n prompts or pairs that this process takes of a step."""
        size = min(self.settings.prompts_per_step, n)
        per_epoch = n // size  # each has an order of its own
        order = np.random.default_rng([self.settings.seed, step // per_epoch]).permutation(n)
        share = size // self.processes.size
        return order[step % per_epoch * size :][self.processes.rank * share :][:share].tolist()

    def compared(self, samples: Samples) -> tuple[PerToken, PerToken]:
        """Log-probabilities of the samples' tokens by the policy, and by the reference, without gradients."""
        budget = self.settings.token_budget
        with torch.no_grad():
            before = self.reference.log_probabilities(samples, token_budget=budget)
        return self.policy.log_probabilities(samples, token_budget=budget), before

    def descend(self) -> float:
        """One optimizer step along the gradients of all processes; the policy's norm before clipping."""
        groups = [group["params"] for group in self.optimizer.param_groups]  # the policy's weights first
        self.processes.add_gradients(weight for weights in groups for weight in weights)
        norm, *others = (nn.utils.clip_grad_norm_(weights, self.settings.clip_norm) for weights in groups)
        if not all(torch.isfinite(value) for value in (norm, *others)):
            raise AlignmentError("a gradient is not finite: lower the learning rate; the last checkpoint is kept")
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return float(norm)

    def prepare(self) -> None:
        """Optimizer and schedule, anew."""
        settings = self.settings
        self.optimizer = torch.optim.AdamW(
            self.parameter_groups(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
        self.scheduler = scheduler_for("constant", settings.warmup_steps, self.optimizer, settings.n_steps)


def seed_of(settings: AlignSettings, step: int, rank: int = 0) -> int:
    """The seed of the samples that a process draws in a step."""
    return int(np.random.default_rng([settings.seed, step, 7, *([rank] if rank else [])]).integers(2**31))


def optimise(
    learner: Learner, folder: Path, watch: Watch | None, origin: Policy, *, progress: bool, label: str = ""
) -> None:
    """Run all steps, or those after the last checkpoint, and write the last policy and the best one.

    The log holds the rows; the start and every `watch.every_steps` are measured. Samples are drawn from seeds of their
    own step, so that a run that was killed goes on as if nothing had happened.
    """
    settings, processes, started = learner.settings, learner.processes, time.perf_counter()
    learner.prepare()
    state = checkpoints.State(learner, learner.optimizer, learner.scheduler, processes)
    found = checkpoints.read_latest(folder, state)
    last = int(found["step"]) if found else -1  # step 0 measures the start
    processes.on_main(partial(cut_log, folder, last))
    rows = read_log(folder)
    best = max((_quality(row) for row in rows if "watched" in row), default=-np.inf)
    before = rows[-1]["seconds"] if rows else 0.0
    told: dict[str, Any] = {"total": settings.n_steps, "initial": max(0, last), "unit": "step", "leave": False}
    shown = progress and processes.is_main
    bars = progress_bar(desc=label or settings.method, show=shown, **told)
    with (folder / LOG_FILE).open("ab", buffering=0) as log, bars as bar:
        for step in range(last + 1, settings.n_steps + 1):
            row: dict[str, Any] = {"step": step} | (learner.update(step - 1) if step else {})
            if watch is not None and (step == settings.n_steps or step % watch.every_steps == 0):
                measure = partial(watch.measure, learner.policy, origin, max_new_tokens=settings.max_new_tokens)
                row["watched"] = processes.on_main(measure)
                if (quality := _quality(row)) > best:
                    best = quality
                    processes.on_main(partial(_save, learner.policy, folder / BEST_FOLDER))
            row["seconds"] = before + time.perf_counter() - started
            processes.on_main(partial(append_row, log, row))
            bar.update(bool(step))
            every = settings.checkpoint_every_steps
            if every and step and step % every == 0 and step < settings.n_steps:
                checkpoints.write(folder, state, {"step": step})
    row.pop("watched", None)
    processes.on_main(partial(_save, learner.policy, folder / POLICY_FOLDER))
    processes.on_main(partial(write_json, folder / FINISHED_FILE, row))


def _quality(row: dict[str, Any]) -> float:
    """What the best policy has most of: the mean of the proxy; without one, steps."""
    return float(np.mean(row["watched"].get("proxy", row["step"])))


def _save(policy: Policy, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with written_whole(folder) as temporary:
        policy.save(temporary)
