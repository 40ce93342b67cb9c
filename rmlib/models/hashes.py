"""What names a network and a tokenizer by their content: two that compute the same have the same hash."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from rmlib.records.hashing import fingerprint


def hash_of_weights(module: nn.Module) -> str:
    """16 hex digits of names, types, shapes and values of all its tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def hash_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """16 hex digits of all that decides how it cuts a text, the chat template apart."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    # What the last call padded or cut is no part of the tokenizer.
    return fingerprint({name: part for name, part in parts.items() if name not in ("padding", "truncation")})
