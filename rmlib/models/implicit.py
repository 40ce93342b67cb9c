"""The implicit reward of a policy trained by DPO (arXiv 2305.18290): how much more likely it makes a response.

    reward = beta * sum over the tokens of the response of (log policy - log reference)

What of it does not depend on the response cancels within a prompt, so no partition function is needed. Without a
reference model the second term is left out: such rewards are another kind, and their name says so. Every response's own
tokens count, those that end its turn included, and nothing of the prompt or of the header before the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from rmlib.models import backbones, batches, tokens
from rmlib.models.batches import Group
from rmlib.models.interface import ModelError, Prompt
from rmlib.models.likelihood import header, log_probabilities, targets_of
from rmlib.models.tokens import Encoded
from rmlib.records import paths
from rmlib.records.hashing import prompt_key

BETA = 0.1  # scales rewards, never their order


class ImplicitReward:
    """A policy and its reference, or a policy alone, as a scorer of responses."""

    def __init__(self, policy: Any, reference: Any | None, tokenizer: PreTrainedTokenizerBase, name: str, beta: float):
        self.policy, self.reference, self.tokenizer = policy, reference, tokenizer
        self.name, self.beta = name, beta
        self.networks = [policy] if reference is None else [policy, reference]
        limits = [backbones.position_limit(network.config) or 4096 for network in self.networks]
        self.max_length = min(limits)
        self.shared = all(backbones.shares_prefix(network.base_model, self.max_length)[0] for network in self.networks)

    @property
    def device(self) -> torch.device:
        return self.policy.device

    def to(self, device: torch.device | str) -> ImplicitReward:
        """Both models on another device."""
        for network in self.networks:
            network.to(device)
        return self

    def encode(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Encoded:
        """Tokens of each conversation, in the policy's template; never cut."""
        return tokens.encode_decoder(self.tokenizer, prompts, responses)

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[str], *, token_budget: int = 4096
    ) -> Float[np.ndarray, "response"]:
        """Rewards of flat lists; equal prompts in a row are encoded once. Raises ModelError for an over-long text.

        The budget is smaller than a reward model's: every counted token has as many logits as there are words.
        """
        encoded = self.encode(prompts, responses)
        encoded.refuse_long(self.max_length, self.name)
        runs = [list(run) for _, run in groupby(prompts, key=prompt_key)]
        starts = first_own_tokens(self.tokenizer, runs, encoded)
        groups = batches.group(encoded, [len(run) for run in runs])
        rewards = np.empty(len(responses))
        for some, rows in batches.packed(groups, token_budget, shared=self.shared):
            sums = self._log_probabilities(some, starts[rows])
            rewards[rows] = self.beta * (sums[0] - sum(sums[1:]))
        return rewards

    def _log_probabilities(self, groups: Sequence[Group], starts: np.ndarray) -> list[Float[np.ndarray, "response"]]:
        pad = self.tokenizer.pad_token_id or 0
        batch = batches.collate_shared(groups) if self.shared else batches.collate_padded(groups, pad)
        targets = targets_of(groups, batch, starts)
        return [log_probabilities(network, batch.to(self.device), targets) for network in self.networks]


def load_implicit(
    policy: str | Path,
    reference: str | Path | None = None,
    *,
    beta: float = BETA,
    dtype: torch.dtype = torch.float32,
) -> ImplicitReward:
    """Policy and reference (or none, for rewards that are reference-free) from folders or hub ids, in safetensors.

    Raises BackboneError for what cannot be loaded, ModelError for models whose tokens have different meanings.
    """
    network, tokenizer = backbones.read_whole(AutoModelForCausalLM, str(policy), dtype=dtype)
    name, other = implicit_name(policy, reference), None
    if reference is not None:
        other, other_tokenizer = backbones.read_whole(AutoModelForCausalLM, str(reference), dtype=dtype)
        if tokenizer.get_vocab() != other_tokenizer.get_vocab():
            raise ModelError(f"{name}: their tokenizers differ, so their log-probabilities are of different tokens")
    backbones.prepare_tokenizer(tokenizer, name)
    for each in (network, other):
        if each is not None:
            backbones.prepare_attention(each)
    return ImplicitReward(network, other, tokenizer, name, beta)


def implicit_name(policy: str | Path, reference: str | Path | None) -> str:
    """What a table or a record calls such a scorer; without a reference it says so."""
    first, *rest = [paths.public_name(str(name)) for name in (policy, reference) if name is not None]
    return f"{first} over {rest[0]}" if rest else f"{first}, reference-free"


def first_own_tokens(
    tokenizer: PreTrainedTokenizerBase, runs: Sequence[Sequence[Prompt]], encoded: Encoded
) -> Int[np.ndarray, "response"]:
    """Index of each response's first own token, whatever it is scored with; `runs` holds equal prompts together."""
    headers = []
    for run in runs:
        headers += [header(tokenizer, run[0])] * len(run)
    pairs = zip(tokens.tokens_of(tokenizer, headers), encoded.ids, strict=True)
    # No model gives a probability to the first token of a text.
    return np.array([max(1, _n_common(before, row)) for before, row in pairs], dtype=np.int64)


def _n_common(first: np.ndarray, second: np.ndarray) -> int:
    """Length of the common beginning of two rows of tokens."""
    length = min(len(first), len(second))
    differs = np.flatnonzero(first[:length] != second[:length])
    return int(differs[0]) if len(differs) else length
