"""How likely a language model finds the tokens of responses, and the implicit reward of DPO (arXiv 2305.18290).

    reward = beta * sum over the tokens of the response of (log policy - log reference)

What of it does not depend on the response cancels within a prompt, so no partition function is needed. Without a
reference model the second term is left out: such rewards are another kind, and their name says so. Every response's own
tokens count, those that end its turn included, and nothing of the prompt or of the header before the response.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from rmlib.models import backbones, batches, templates, tokens
from rmlib.models.batches import Batch, Group, SharedBatch
from rmlib.models.interface import ModelError, Prompt, Response
from rmlib.models.tokens import Encoded
from rmlib.pairs.messages import conversations
from rmlib.records import paths
from rmlib.records.hashing import prompt_key

BETA = 0.1  # scales rewards, never their order
TOKENS_AT_ONCE = 512  # of which fp32 log-probabilities of the whole vocabulary are held


class Targets(NamedTuple):
    """The counted tokens of a batch: where the state before each lies, the token itself, and whose it is."""

    row: Int[np.ndarray, "target"]
    column: Int[np.ndarray, "target"]
    token: Int[np.ndarray, "target"]
    response: Int[np.ndarray, "target"]


def header(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The text before a response: what two conversations that differ in it alone have in common."""
    return os.path.commonprefix([templates.render(tokenizer, prompt, probe) for probe in ("a", "b")])


def targets_of(groups: Sequence[Group], batch: Batch, starts: Int[np.ndarray, "response"]) -> Targets:
    """The tokens of each response from `starts` on; of responses that begin alike they may lie in the shared part."""
    parts, number = [], 0
    for item in groups:
        shared = item.n_shared if isinstance(batch, SharedBatch) else 0
        # Where the group's shared tokens start, and each response's own ones behind them.
        begin = int(batch.ends[number]) - len(item.ids[0]) + 1
        for ids in item.ids:
            before = np.arange(starts[number] - 1, len(ids) - 1)
            if isinstance(batch, SharedBatch):
                own = int(batch.ends[number]) - len(ids) + 1
                row, column = np.zeros_like(before), before + np.where(before < shared, begin, own)
            else:
                row, column = np.full_like(before, number), before
            parts.append((row, column, ids[before + 1], np.full_like(before, number)))
            number += 1
    return Targets(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def token_log_probabilities(network: PreTrainedModel, batch: Batch, targets: Targets) -> Float[Tensor, "target"]:
    """Log-probability of each counted token, in fp32; logits are computed only where a counted token follows."""
    columns = np.unique(targets.column)
    device, inputs = batch.input_ids.device, batches.inputs_of(batch, network.config)
    logits = network(**inputs, logits_to_keep=torch.from_numpy(columns).to(device), use_cache=False).logits
    row, column, token = (
        torch.from_numpy(index).to(device)
        for index in (targets.row, np.searchsorted(columns, targets.column), targets.token)
    )
    values = [
        torch.log_softmax(logits[row[part], column[part]].float(), dim=-1).gather(1, token[part, None])[:, 0]
        for part in torch.arange(len(row), device=device).split(TOKENS_AT_ONCE)
    ]
    return torch.cat(values)


class ImplicitReward(torch.nn.Module):
    """A policy and its reference, or a policy alone, as a scorer of responses."""

    def __init__(self, networks: Sequence[PreTrainedModel], tokenizer: PreTrainedTokenizerBase, name: str, beta: float):
        super().__init__()
        self.networks = torch.nn.ModuleList(networks)
        self.tokenizer, self.name, self.beta = tokenizer, name, beta
        self.max_length = min(backbones.position_limit(network.config) for network in networks)
        self.shared = all(backbones.shares_prefix(network.base_model, self.max_length)[0] for network in networks)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def encode(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Encoded:
        """Tokens of each conversation, in the policy's template; never cut."""
        return tokens.encode_decoder(self.tokenizer, prompts, responses)

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, token_budget: int = 4096
    ) -> Float[np.ndarray, "response"]:
        """Rewards of flat lists; equal prompts in a row are encoded once. Raises ModelError for an over-long text.

        The budget is smaller than a reward model's: every counted token has as many logits as there are words.
        """
        prompts, responses = conversations(prompts, responses)
        encoded = self.encode(prompts, responses)
        encoded.refuse_long(self.max_length, self.name)
        encoded.refuse_unknown(self.networks[0].config, self.name)
        runs = [list(run) for _, run in groupby(prompts, key=prompt_key)]
        headers = [text for run in runs for text in [header(self.tokenizer, run[0])] * len(run)]
        before = zip(tokens.tokens_of(self.tokenizer, headers), encoded.ids, strict=True)
        # Each response's first own token; no model gives a probability to the first token of a text.
        starts = np.array([max(1, batches.n_common(*rows)) for rows in before], dtype=np.int64)
        groups = batches.group(encoded, [len(run) for run in runs])
        rewards = np.empty(len(responses))
        for some, rows in batches.packed(groups, token_budget, shared=self.shared):
            batch = batches.collate_shared(some) if self.shared else batches.collate_padded(some)
            targets, batch = targets_of(some, batch, starts[rows]), batch.to(self.device)
            values = [token_log_probabilities(network, batch, targets).double().cpu() for network in self.networks]
            sums = [np.bincount(targets.response, weights=of_tokens.numpy()) for of_tokens in values]
            rewards[rows] = self.beta * (sums[0] - sum(sums[1:]))
        return rewards


def load_implicit(
    policy: str | Path, reference: str | Path | None = None, *, beta: float = BETA, dtype: torch.dtype = torch.float32
) -> ImplicitReward:
    """Policy and reference (or none, for rewards that are reference-free) from folders or hub ids, in safetensors.

    Raises BackboneError for what cannot be loaded, ModelError for models whose tokens have different meanings.
    """
    sources = [str(source) for source in (policy, reference) if source is not None]
    read = [backbones.read_whole(AutoModelForCausalLM, source, dtype=dtype) for source in sources]
    name, tokenizer = implicit_name(policy, reference), read[0][1]
    if any(other.get_vocab() != tokenizer.get_vocab() for _, other in read):
        raise ModelError(f"{name}: their tokenizers differ, so their log-probabilities are of different tokens")
    backbones.prepare_tokenizer(tokenizer, name)
    for network, _ in read:
        backbones.prepare_attention(network)
    return ImplicitReward([network for network, _ in read], tokenizer, name, beta)


def implicit_name(policy: str | Path, reference: str | Path | None) -> str:
    """What a table or a record calls such a scorer; without a reference it says so."""
    first, *rest = [paths.public_name(str(name)) for name in (policy, reference) if name is not None]
    return f"{first} over {rest[0]}" if rest else f"{first}, reference-free"
