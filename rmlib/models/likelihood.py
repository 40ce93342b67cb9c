"""How likely a language model finds the tokens of responses, with each prompt encoded once.

Used where a policy is scored (`benchmarks.implicit`) and where one is trained (`alignment.policies`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rmlib.models import batches, tokens
from rmlib.models.batches import Batch, Group, SharedBatch
from rmlib.models.interface import Prompt

TOKENS_AT_ONCE = 512  # of which fp32 log-probabilities of the whole vocabulary are held


class Targets(NamedTuple):
    """The counted tokens of a batch: where the state before each lies, the token itself, and whose it is."""

    row: Int[np.ndarray, "target"]
    column: Int[np.ndarray, "target"]
    token: Int[np.ndarray, "target"]
    response: Int[np.ndarray, "target"]


def header(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    """The text before a response: what two conversations that differ in it alone have in common."""
    return os.path.commonprefix([tokens.render(tokenizer, prompt, probe) for probe in ("a", "b")])


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


def token_log_probabilities(network: Any, batch: Batch, targets: Targets) -> Float[Tensor, "target"]:
    """Log-probability of each counted token, in fp32; logits are computed only where a counted token follows."""
    columns = np.unique(targets.column)
    device = batch.input_ids.device
    logits = network(**_inputs(batch), logits_to_keep=torch.from_numpy(columns).to(device), use_cache=False).logits
    row, column, token = (
        torch.from_numpy(index).to(device)
        for index in (targets.row, np.searchsorted(columns, targets.column), targets.token)
    )
    values = [
        torch.log_softmax(logits[row[part], column[part]].float(), dim=-1).gather(1, token[part, None])[:, 0]
        for part in torch.arange(len(row), device=device).split(TOKENS_AT_ONCE)
    ]
    return torch.cat(values)


def log_probabilities(network: Any, batch: Batch, targets: Targets) -> Float[np.ndarray, "response"]:
    """Sum over each response's counted tokens of their log-probability, in fp64."""
    values = token_log_probabilities(network, batch, targets)
    return np.bincount(targets.response, weights=values.double().cpu().numpy())


def _inputs(batch: Batch) -> dict[str, Any]:
    if isinstance(batch, SharedBatch):
        return batches.shared_inputs(batch)
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
