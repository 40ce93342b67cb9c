"""What is measured of a policy while it is optimised: rewards, truth, divergence and length of fresh answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rmlib.alignment.policies import Policy, Reference, Samples, valid_tokens
from rmlib.alignment.rewards import reward_identity
from rmlib.models import Prompt, Scorer
from rmlib.records.hashing import fingerprint, prompt_key


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
        prompts = [prompt_key([dict(message) for message in prompt]) for prompt in self.prompts]
        scorers = {name: reward_identity(scorer) for name, scorer in self.scorers.items()}
        return fingerprint("watch", prompts, scorers, self.every_steps, self.samples_per_prompt, self.seed)

    def measure(self, policy: Policy, origin: Reference, *, max_new_tokens: int) -> dict[str, Any]:
        """One row: `divergence` from the origin in nats a response, means and lists of scores, length, counts."""
        samples = policy.sample(self.prompts, self.samples_per_prompt, max_new_tokens=max_new_tokens, seed=self.seed)
        row: dict[str, Any] = {f"n {name}": count for name, count in samples.counts().items()}
        row["length"] = float(np.mean([len(text) for text in samples.texts]))
        row["tokens"] = float(samples.n_tokens.mean())
        row["divergence"], row["divergence_se"] = divergence(policy, origin, samples)
        for name, scorer in self.scorers.items():
            values = np.asarray(scorer.score(samples.repeated_prompts, samples.texts), dtype=float)
            table = values.reshape(len(self.prompts), -1)
            row[name] = [round(float(value), 4) for value in table.mean(axis=1)]
            if self.samples_per_prompt > 1:  # of answers to one prompt: rewards compare nothing else
                row[f"{name}_sd"] = float(table.std(axis=1, ddof=1).mean())
        return row


@torch.no_grad()
def divergence(policy: Policy, origin: Reference, samples: Samples) -> tuple[float, float]:
    """KL divergence of the policy from the origin, in nats a response, from the policy's own samples; standard error.

    The mean over responses of `log pi(y|x) - log pi_origin(y|x)`, summed over tokens: unbiased, and noisy where the two
    are far apart. A response that was cut short counts up to there.
    """
    valid = valid_tokens(samples).to(policy.device)
    difference = policy.log_probabilities(samples) - origin.log_probabilities(samples)
    total = torch.where(valid, difference, 0.0).sum(dim=1).double()
    return float(total.mean()), float(total.std() / len(total) ** 0.5) if len(total) > 1 else 0.0
