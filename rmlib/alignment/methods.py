"""The methods: one update of REINFORCE, PPO and DPO each, made of the estimators.

None is taken from TRL (1.16): its RLOO subtracts a penalty summed over sampled tokens and has a baseline of all
samples, where the authors' code has the mean of absolute log-ratios and leaves out what did not end; it has no PPO any
more; and its DPO, with which a test compares the regular one, has neither the margin nor the scaled loss.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Bool, Float
from torch import Tensor

from rmlib.alignment import estimators
from rmlib.alignment.estimators import PerResponse, PerToken, Valid
from rmlib.alignment.loop import Learner, PreferencePairs, Task, seed_of
from rmlib.alignment.policies import Policy, Samples, in_passes, valid_tokens
from rmlib.alignment.rewards import AlignmentError, rewards_of
from rmlib.alignment.settings import AlignSettings
from rmlib.models import RewardModel, Scorer, batches
from rmlib.models.batches import Group
from rmlib.models.likelihood import targets_of
from rmlib.pairs.views import decided_rows
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
        own = {"reward": float(known.sum()), "known": len(known), "tokens": int(samples.n_tokens.sum())} | counts | sums
        of_all = dict(zip(own, self.processes.sum(*own.values()), strict=True))
        mean = of_all["reward"] / of_all["known"] if of_all["known"] else None
        row: dict[str, Any] = {"reward": mean, "tokens": of_all["tokens"] / of_all["samples"]}
        row |= {f"n {name}": int(of_all[name]) for name in counts} | {name: of_all[name] for name in sums}
        return row | {"gradient_norm": gradient_norm}


class Reinforce(OnPolicy):
    """REINFORCE with a leave-one-out baseline, as in the authors' code (see `estimators`).

    Samples that did not end are left out of baseline and loss, and counted; where none ended, the policy stays.
    """

    def update(self, step: int) -> dict[str, Any]:
        samples, reward, ended = self.draw(step)
        valid = valid_tokens(samples) & ended.view(-1, 1)
        n_valid, n_samples = self.processes.sum(int(valid.sum()), len(samples))
        settings = self.settings
        if not n_valid:
            return self.log_row(samples, reward, ended, gradient_norm=0.0, loss=0.0, penalty=0.0)
        total = penalties = 0.0
        for prompts in torch.arange(len(samples.prompts)).split(settings.prompts_at_once):
            part = samples.take(prompts.tolist())
            logp, before = self.compared(part)
            every = valid_tokens(part).to(logp.device)
            penalty = estimators.mean_absolute_divergence(logp.detach(), before, every)
            given, counted = reward[prompts].to(logp.device), ended[prompts].to(logp.device)
            penalised = given - settings.kl_coefficient * penalty.view_as(given)
            advantage = penalised - estimators.leave_one_out_baseline(penalised, counted)
            own = every & counted.view(-1, 1)
            if not own.any():
                continue
            advantage = torch.where(counted, advantage, 0.0).view(-1)  # what never ended may carry a NaN
            loss = estimators.reinforce_loss(logp, advantage, own) * (own.sum() / n_valid)
            loss.backward()
            total, penalties = total + float(loss.detach()), penalties + float(penalty.sum()) / n_samples
        return self.log_row(samples, reward, ended, gradient_norm=self.descend(), loss=total, penalty=penalties)


# --- PPO --------------------------------------------------------------------------------------------------------------


class Rollout(NamedTuple):
    """A step's samples with what PPO needs of each token."""

    samples: Samples
    old_logp: PerToken
    old_value: PerToken
    advantage: PerToken
    returns: PerToken
    valid: Valid

    def take(self, prompts: Sequence[int]) -> Rollout:
        """The part of some of the prompts, as wide as its longest response."""
        samples, rows = self.samples.take(prompts), self.samples.rows(prompts)
        width = int(samples.n_tokens.max())
        return Rollout(samples, *(table[rows, :width] for table in self[1:]))


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
        for prompts in torch.arange(len(samples.prompts)).split(size):
            part = rollout.take(prompts.tolist())
            n_own = int(part.valid.sum())
            (n_valid,) = self.processes.sum(n_own)
            if n_valid:
                own = self._losses(part, n_own / n_valid) if n_own else (0.0, 0.0)
                found.append((*own, self.descend()))
        loss, value_loss, norm = np.mean(found or [(0.0, 0.0, 0.0)], axis=0).tolist()
        return self.log_row(samples, reward, ended, gradient_norm=norm, loss=loss, value_loss=value_loss)

    @torch.no_grad()
    def _rollout(self, samples: Samples, reward: Tensor, ended: Tensor) -> Rollout:
        logp, before = self.compared(samples)
        value = token_values(self.critic, samples, token_budget=self.settings.token_budget)
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

    def _losses(self, part: Rollout, share: float) -> tuple[float, float]:
        """Gradients of both losses over a minibatch, of whose tokens this process has a share, and their values."""
        settings, budget = self.settings, self.settings.token_budget
        _, old_logp, old_value, advantage, returns, valid = part
        logp = self.policy.log_probabilities(part.samples, token_budget=budget)
        policy_loss = share * estimators.ppo_policy_loss(logp, old_logp, advantage, valid, clip=settings.ratio_clip)
        policy_loss.backward()
        value = token_values(self.critic, part.samples, token_budget=budget)
        value_loss = share * estimators.ppo_value_loss(value, old_value, returns, valid, clip=settings.value_clip)
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


# --- DPO --------------------------------------------------------------------------------------------------------------


def annotated(pairs: Dataset) -> PreferencePairs:
    """The decided pairs of a table, as the annotators ordered them."""
    rows = decided_rows(pairs)
    prompts, chosen, rejected, strength = (
        [row[k] for row in rows] for k in ("prompt", "chosen", "rejected", "strength")
    )
    return PreferencePairs(prompts, chosen, rejected, np.array(strength, dtype=float))


def labelled(samples: Samples, reward: Scorer) -> PreferencePairs:
    """The best and the worst ended sample of each prompt by a reward, all of strength 1.

    Prompts with fewer than two different ended answers, or equal rewards, are left out. Raises AlignmentError where
    none is left.
    """
    rewards = rewards_of(reward, samples).numpy()
    ended = samples.ended.reshape(rewards.shape)
    best, worst = (np.where(ended, sign * rewards, -np.inf).argmax(axis=1) for sign in (1, -1))
    rows, n = np.arange(len(rewards)), samples.n_per_prompt
    kept = np.flatnonzero((ended.sum(axis=1) > 1) & (rewards[rows, best] > rewards[rows, worst]))
    if not len(kept):
        raise AlignmentError("no prompt has two ended answers with different rewards: there is no pair to learn from")
    prompts = [samples.prompts[row] for row in kept]
    chosen, rejected = ([samples.texts[row * n + side[row]] for row in kept] for side in (best, worst))
    return PreferencePairs(prompts, chosen, rejected, np.ones(len(kept)))


class DPO(Learner):
    """Regular, margin or scaled DPO on pairs of given texts (`estimators.dpo_loss`)."""

    def __init__(self, start: Policy, settings: AlignSettings, task: Task, processes: Processes = ALONE) -> None:
        super().__init__(start, settings, processes)
        if task.pairs is None:
            raise AlignmentError("DPO learns from pairs: give some (methods.annotated, methods.labelled)")
        texts = [text for couple in zip(task.pairs.chosen, task.pairs.rejected, strict=True) for text in couple]
        self.pairs, self.samples = task.pairs, start.read(task.pairs.prompts, 2, texts)

    def update(self, step: int) -> dict[str, Any]:
        chosen = self.own(step, len(self.pairs.prompts))
        n_pairs = len(chosen) * self.processes.size
        right = margins = total = 0.0
        for some in torch.tensor(chosen).split(self.settings.prompts_at_once):
            margin, loss = self._margin_and_loss(some.tolist())
            (loss.sum() / n_pairs).backward()
            right, margins = right + int((margin > 0).sum()), margins + float(margin.sum())
            total += float(loss.detach().sum())
        sums = zip(("accuracy", "margin", "loss"), self.processes.sum(right, margins, total), strict=True)
        return {name: value / n_pairs for name, value in sums} | {"gradient_norm": self.descend()}

    def _margin_and_loss(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        settings = self.settings
        policy, reference = (logp.sum(dim=1).view(-1, 2) for logp in self.compared(self.samples.take(indices)))
        strength = torch.tensor(self.pairs.strength[list(indices)], dtype=policy.dtype, device=policy.device)
        loss = estimators.dpo_loss(
            settings.loss, policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], strength, beta=settings.beta
        )
        ratio = (policy - reference).detach()
        return settings.beta * (ratio[:, 0] - ratio[:, 1]), loss
