"""DPO on pairs of given texts: regular, margin or scaled, by the loss that reward models have.

Not taken from TRL: its DPO has neither the margin nor the scaled loss; a test compares the regular one with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from rmlib.alignment import estimators
from rmlib.alignment.loop import Learner, PreferencePairs, Task, parts
from rmlib.alignment.policies import Policy, Samples
from rmlib.alignment.rewards import AlignmentError, rewards_of
from rmlib.alignment.settings import AlignSettings
from rmlib.models import Scorer
from rmlib.pairs import preference_view
from rmlib.training.parallel import ALONE, Processes


def annotated(pairs: Dataset) -> PreferencePairs:
    """The decided pairs of a table, as the annotators ordered them."""
    view = preference_view(pairs)
    chosen, rejected = ([answer[0]["content"] for answer in view[side][:]] for side in ("chosen", "rejected"))
    return PreferencePairs(view["prompt"][:], chosen, rejected, np.array(view["strength"][:], dtype=float))


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
            raise AlignmentError("DPO learns from pairs: give some (dpo.annotated, dpo.labelled)")
        texts = [text for couple in zip(task.pairs.chosen, task.pairs.rejected, strict=True) for text in couple]
        self.pairs, self.samples = task.pairs, start.read(task.pairs.prompts, 2, texts)

    def update(self, step: int) -> dict[str, Any]:
        chosen = self.own(step, len(self.pairs.prompts))
        n_pairs = len(chosen) * self.processes.size
        right = margins = total = 0.0
        for start, stop in parts(len(chosen), self.settings.prompts_at_once):
            margin, loss = self._margin_and_loss(chosen[start:stop])
            (loss.sum() / n_pairs).backward()
            right, margins = right + int((margin > 0).sum()), margins + float(margin.sum())
            total += float(loss.detach().sum())
        sums = zip(("accuracy", "margin", "loss"), self.processes.sum(right, margins, total), strict=True)
        return {name: value / n_pairs for name, value in sums} | {"gradient_norm": self.descend()}

    def _margin_and_loss(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        part, settings = self.samples.take(indices), self.settings
        policy, reference = (
            source.log_probabilities(part, token_budget=settings.token_budget).sum(dim=1).view(-1, 2)
            for source in (self.policy, self.reference)
        )
        strength = torch.tensor(self.pairs.strength[list(indices)], dtype=policy.dtype, device=policy.device)
        loss = estimators.dpo_loss(
            settings.loss, policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], strength, beta=settings.beta
        )
        ratio = (policy - reference).detach()
        return settings.beta * (ratio[:, 0] - ratio[:, 1]), loss
