"""PPO with a value model that starts as the reward model: one update, a few optimizer steps.

Written here because TRL has no PPO any more (1.16).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rmlib.alignment import estimators
from rmlib.alignment.estimators import PerResponse, PerToken, Valid
from rmlib.alignment.loop import Task, parts
from rmlib.alignment.policies import Policy, Samples, in_passes, valid_tokens
from rmlib.alignment.reinforce import OnPolicy
from rmlib.alignment.rewards import AlignmentError
from rmlib.alignment.settings import AlignSettings
from rmlib.models import RewardModel, batches
from rmlib.models.batches import Group
from rmlib.models.likelihood import targets_of
from rmlib.training.parallel import ALONE, Processes


class Rollout(NamedTuple):
    """A step's samples with what PPO needs of each token."""

    samples: Samples
    old_logp: PerToken
    old_value: PerToken
    advantage: PerToken
    returns: PerToken
    valid: Valid


class PPO(OnPolicy):
    """Clipped policy and value losses; the value model starts as the reward model, head included.

    The reward falls on the last token, the penalty `kl_coefficient * (log pi - log pi_ref)` on every one. Advantages
    are standardised over the tokens of the step. Samples that did not end are left out, and counted.
    Raises AlignmentError as `critic_of`.
    """

    def __init__(self, start: Policy, settings: AlignSettings, task: Task, processes: Processes = ALONE) -> None:
        super().__init__(start, settings, task, processes)
        self.critic = copy.deepcopy(critic_of(task, start)).requires_grad_(True).to(self.policy.device)

    def parameter_groups(self) -> list[dict[str, Any]]:
        value = {"params": list(self.critic.parameters()), "lr": self.settings.value_learning_rate}
        return [*super().parameter_groups(), value]

    def update(self, step: int) -> dict[str, Any]:
        samples, reward, ended = self.draw(step)
        rollout = self._rollout(samples, reward, ended)
        found: list[tuple[float, float, float]] = []
        size = -(-len(samples.prompts) // self.settings.minibatches)
        for start, stop in parts(len(samples.prompts), size):
            n_own = int(self._rows(rollout.valid, start, stop).sum())
            (n_valid,) = self.processes.sum(n_own)
            if n_valid:
                own = self._losses(rollout, start, stop, n_own / n_valid) if n_own else (0.0, 0.0)
                found.append((*own, self.descend()))
        loss, value_loss, norm = np.mean(found or [(0.0, 0.0, 0.0)], axis=0).tolist()
        return self.log_row(samples, reward, ended, gradient_norm=norm, loss=loss, value_loss=value_loss)

    @torch.no_grad()
    def _rollout(self, samples: Samples, reward: Tensor, ended: Tensor) -> Rollout:
        budget = self.settings.token_budget
        logp = self.policy.log_probabilities(samples, token_budget=budget)
        before = self.reference.log_probabilities(samples, token_budget=budget)
        value = token_values(self.critic, samples, token_budget=budget)
        valid = (valid_tokens(samples) & ended.view(-1, 1)).to(logp.device)
        rewards = token_rewards(logp, before, reward.view(-1).to(logp.device), valid, self.settings.kl_coefficient)
        advantage, returns = estimators.generalised_advantages(
            rewards, value, valid, gamma=self.settings.gamma, lam=self.settings.lam
        )
        return Rollout(samples, logp, value, self._standardised(advantage, valid), returns, valid)

    def _standardised(self, advantage: Tensor, valid: Tensor) -> Tensor:
        """With mean 0 and standard deviation 1 over the tokens of all processes."""
        known = advantage[valid].double()
        total, n = self.processes.sum(float(known.sum()), len(known))
        if n < 2:
            return advantage
        mean = total / n
        (squares,) = self.processes.sum(float((known - mean).square().sum()))
        return torch.where(valid, (advantage - mean) / ((squares / (n - 1)) ** 0.5 + 1e-8), 0.0)

    def _rows(self, table: Tensor, start: int, stop: int) -> Tensor:
        n = self.settings.samples_per_prompt
        return table[start * n : stop * n]

    def _losses(self, rollout: Rollout, start: int, stop: int, share: float) -> tuple[float, float]:
        """Gradients of both losses over a minibatch, of whose tokens this process has a share, and their values."""
        budget, settings = self.settings.token_budget, self.settings
        part = rollout.samples.take(range(start, stop))
        width = int(part.n_tokens.max())
        names = ("old_logp", "old_value", "advantage", "returns", "valid")
        logp0, value0, advantage, returns, valid = (
            self._rows(getattr(rollout, name), start, stop)[:, :width] for name in names
        )
        logp = self.policy.log_probabilities(part, token_budget=budget)
        policy_loss = share * estimators.ppo_policy_loss(logp, logp0, advantage, valid, clip=settings.ratio_clip)
        policy_loss.backward()
        value = token_values(self.critic, part, token_budget=budget)
        value_loss = share * estimators.ppo_value_loss(value, value0, returns, valid, clip=settings.value_clip)
        value_loss.backward()
        return float(policy_loss.detach()), float(value_loss.detach())


def critic_of(task: Task, policy: Policy) -> RewardModel:
    """What the value model starts as. Values are of tokens, not of texts, and each is one number.

    Raises AlignmentError where there is no reward model, or it does not read the policy's tokens, or has more outputs.
    """
    critic = task.critic or task.reward
    if not isinstance(critic, RewardModel):
        kind = type(task.reward).__name__
        raise AlignmentError(f"PPO's value model starts as a RewardModel, the reward is a {kind}: give critic")
    if critic.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
        raise AlignmentError(
            f"the value model starts as the reward model {critic.name}, whose tokenizer is not that of the policy "
            f"{policy.name}: PPO needs one on the policy's tokens; REINFORCE and DPO do not"
        )
    if len(critic.attributes) != 1:
        raise AlignmentError(f"a value model has one output, this one {len(critic.attributes)}; use weigh_attributes")
    return critic


def token_rewards(
    logp: PerToken, reference_logp: PerToken, reward: PerResponse, valid: Valid, kl_coefficient: float
) -> PerToken:
    """The penalty of every token, and the response's reward on its last; 0 outside. Source: arXiv 2203.02155."""
    rewards = torch.where(valid, -kl_coefficient * (logp - reference_logp), 0.0)
    last = valid.sum(dim=1) - 1
    rows = torch.nonzero(last >= 0)[:, 0]
    rewards[rows, last[rows]] += reward[rows]
    return rewards


def token_values(critic: RewardModel, samples: Samples, *, token_budget: int) -> PerToken:
    """The value before each token of each response: the head on the state from which the policy chose the token."""

    def read(groups: Sequence[Group]) -> Sequence[Float[Tensor, "token"]]:
        batch = critic.collate(groups)
        targets = targets_of(groups, batch, np.array([item.n_shared for item in groups for _ in item.ids]))
        states = critic.backbone(**batches.inputs_of(batch, critic.config), use_cache=False).last_hidden_state
        states = states[torch.from_numpy(targets.row), torch.from_numpy(targets.column)]
        return critic(states)[:, 0].split(np.bincount(targets.response).tolist())

    return in_passes(samples, token_budget, read, shared=critic.shared)
