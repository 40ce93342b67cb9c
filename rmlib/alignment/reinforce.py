"""REINFORCE with a leave-one-out baseline: one update, made of the estimators, on answers drawn from the policy.

Not taken from TRL: its RLOO subtracts a penalty summed over sampled tokens and has a baseline of all samples, where the
authors' code has the mean of absolute log-ratios and leaves out what did not end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rmlib import alignment
from rmlib.alignment.loop import Learner, indices_at, parts, seed_of
from rmlib.alignment.policies import Policy, Samples, valid_tokens
from rmlib.alignment.rewards import AlignmentError, Scorer, rewards_of
from rmlib.alignment.settings import AlignSettings
from rmlib.batches import Prompt


class OnPolicy(Learner):
    """What REINFORCE and PPO share: answers drawn from the policy as it is, and their rewards."""

    def __init__(self, start: Policy, reward: Scorer, prompts: Sequence[Prompt], settings: AlignSettings) -> None:
        super().__init__(start, settings)
        self.reward, self.prompts = reward, prompts
        if not prompts:
            raise AlignmentError("there is no prompt to optimise on")

    def draw(self, step: int) -> tuple[Samples, Float[Tensor, "prompt sample"], Bool[Tensor, "prompt sample"]]:
        """Samples of a step with their rewards, and which of them ended."""
        settings = self.settings
        samples = self.policy.sample(
            [self.prompts[index] for index in indices_at(step, len(self.prompts), settings)],
            settings.samples_per_prompt,
            max_new_tokens=settings.max_new_tokens,
            seed=seed_of(settings, step),
        )
        ended = torch.from_numpy(samples.ended).view(len(samples.prompts), -1)
        return samples, rewards_of(self.reward, samples), ended


def log_row(samples: Samples, reward: Tensor, ended: Tensor, **further: float) -> dict[str, Any]:
    """What a step's log says of its samples; the reward is the mean over those that ended."""
    known = reward[ended]
    row: dict[str, Any] = {
        "reward": float(known.mean()) if len(known) else None,
        "tokens": float(samples.n_tokens.mean()),
    }
    return row | {f"n {name}": count for name, count in samples.counts().items()} | further


class Reinforce(OnPolicy):
    """REINFORCE with a leave-one-out baseline, as in the authors' code (see `estimators`).

    A sample that did not end has no reward: it is left out of the baseline and of the loss, and counted. Where no
    sample of a step teaches anything, the policy stays as it is.
    """

    def update(self, step: int) -> dict[str, Any]:
        samples, reward, ended = self.draw(step)
        valid = valid_tokens(samples) & ended.view(-1, 1)
        n_valid, settings = int(valid.sum()), self.settings
        if not n_valid:
            return log_row(samples, reward, ended, loss=0.0, gradient_norm=0.0, penalty=0.0)
        total = penalties = 0.0
        for start, stop in parts(len(samples.prompts), settings.prompts_at_once):
            part = samples.part(start, stop)
            logp = self.policy.log_probabilities(part, token_budget=settings.token_budget)
            before = self.reference.log_probabilities(part, token_budget=settings.token_budget)
            every = valid_tokens(part).to(self.device)
            penalty = alignment.mean_absolute_divergence(logp.detach(), before, every)
            penalised = reward[start:stop].to(self.device) - settings.kl_coefficient * penalty.view(stop - start, -1)
            counted = ended[start:stop].to(self.device)
            advantage = penalised - alignment.leave_one_out_baseline(penalised, counted)
            own = every & counted.view(-1, 1)
            if not own.any():
                continue
            advantage = torch.where(counted, advantage, 0.0).view(-1)  # what never ended may carry a NaN
            loss = alignment.reinforce_loss(logp, advantage, own) * (own.sum() / n_valid)
            loss.backward()
            total, penalties = total + float(loss.detach()), penalties + float(penalty.sum())
        norm = self.descend()
        return log_row(samples, reward, ended, loss=total, gradient_norm=norm, penalty=penalties / len(samples))
