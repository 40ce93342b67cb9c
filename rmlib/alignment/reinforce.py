"""REINFORCE with a leave-one-out baseline: one update, made of the estimators, on answers drawn from the policy.

Not taken from TRL: its RLOO subtracts a penalty summed over sampled tokens and has a baseline of all samples, where the
authors' code has the mean of absolute log-ratios and leaves out what did not end.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rmlib.alignment import estimators
from rmlib.alignment.loop import Learner, Task, parts, seed_of
from rmlib.alignment.policies import Policy, Samples, valid_tokens
from rmlib.alignment.rewards import AlignmentError, rewards_of
from rmlib.alignment.settings import AlignSettings
from rmlib.training.parallel import ALONE, Processes


class OnPolicy(Learner):
    """What REINFORCE and PPO share: answers drawn from the policy as it is, and their rewards."""

    def __init__(self, start: Policy, settings: AlignSettings, task: Task, processes: Processes = ALONE) -> None:
        super().__init__(start, settings, processes)
        if task.reward is None:
            needed = "a model, an ensemble, or rewards.load_reward(folder)"
            raise AlignmentError(f"{settings.method} needs a reward: {needed}")
        self.reward, self.prompts = task.reward, task.prompts
        if (n := len(task.prompts)) < processes.size:
            raise AlignmentError(f"{n} prompts to optimise on are too few for {processes.size} processes")

    def draw(self, step: int) -> tuple[Samples, Float[Tensor, "prompt sample"], Bool[Tensor, "prompt sample"]]:
        """This process's samples of a step with their rewards, and which of them ended."""
        settings = self.settings
        samples = self.policy.sample(
            [self.prompts[index] for index in self.own(step, len(self.prompts))],
            settings.samples_per_prompt,
            max_new_tokens=settings.max_new_tokens,
            seed=seed_of(settings, step, self.processes.rank),
        )
        ended = torch.from_numpy(samples.ended).view(len(samples.prompts), -1)
        return samples, rewards_of(self.reward, samples), ended

    def log_row(
        self, samples: Samples, reward: Tensor, ended: Tensor, *, gradient_norm: float, **sums: float
    ) -> dict[str, Any]:
        """What a step's log says of the samples of all processes; the reward is the mean over those that ended.

        `sums`: this process's part of further numbers.
        """
        known, counts = reward[ended].double(), samples.counts()
        given = float(known.sum()), len(known), int(samples.n_tokens.sum()), *counts.values(), *sums.values()
        total, n_known, n_tokens, *rest = self.processes.sum(*given)
        counted = {f"n {name}": int(count) for name, count in zip(counts, rest, strict=False)}
        mean = total / n_known if n_known else None
        row: dict[str, Any] = {"reward": mean, "tokens": n_tokens / counted["n samples"]}
        further = dict(zip(sums, rest[len(counts) :], strict=True))
        return row | counted | further | {"gradient_norm": gradient_norm}


class Reinforce(OnPolicy):
    """REINFORCE with a leave-one-out baseline, as in the authors' code (see `estimators`).

    A sample that did not end has no reward: it is left out of the baseline and of the loss, and counted. Where no
    sample of a step teaches anything, the policy stays as it is.
    """

    def update(self, step: int) -> dict[str, Any]:
        samples, reward, ended = self.draw(step)
        valid = valid_tokens(samples) & ended.view(-1, 1)
        n_valid, n_samples = self.processes.sum(int(valid.sum()), len(samples))
        settings = self.settings
        if not n_valid:
            return self.log_row(samples, reward, ended, gradient_norm=0.0, loss=0.0, penalty=0.0)
        total = penalties = 0.0
        for start, stop in parts(len(samples.prompts), settings.prompts_at_once):
            part = samples.take(range(start, stop))
            logp = self.policy.log_probabilities(part, token_budget=settings.token_budget)
            before = self.reference.log_probabilities(part, token_budget=settings.token_budget)
            every = valid_tokens(part).to(self.device)
            penalty = estimators.mean_absolute_divergence(logp.detach(), before, every)
            penalised = reward[start:stop].to(self.device) - settings.kl_coefficient * penalty.view(stop - start, -1)
            counted = ended[start:stop].to(self.device)
            advantage = penalised - estimators.leave_one_out_baseline(penalised, counted)
            own = every & counted.view(-1, 1)
            if not own.any():
                continue
            advantage = torch.where(counted, advantage, 0.0).view(-1)  # what never ended may carry a NaN
            loss = estimators.reinforce_loss(logp, advantage, own) * (own.sum() / n_valid)
            loss.backward()
            total, penalties = total + float(loss.detach()), penalties + float(penalty.sum()) / n_samples
        return self.log_row(samples, reward, ended, gradient_norm=self.descend(), loss=total, penalty=penalties)
