"""Tokens of texts that were encoded before: a ladder encodes the same texts for every arm, seed and factor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from rmlib.models import batches
from rmlib.models.batches import Encoded
from rmlib.models.interface import Prompt

MOST_TOKENS = 20_000_000  # of all texts together: 80 MB
# Of each tokenizer its size when it was hashed, and the hash: reading a vocabulary of 100,000 takes a while.
_HASHES: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, str]] = WeakKeyDictionary()
# By tokenizer with template, prompt and response, all hashed: texts would take more room than their tokens.
_KEPT: dict[bytes, Int[np.ndarray, "token"]] = {}


def encode_decoder(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]) -> Encoded:
    """`batches.encode_decoder`, remembered text by text; the arrays are shared: do not write to them.

    Once more than MOST_TOKENS would be kept, all that is not asked for now is forgotten.
    """
    if len(prompts) != len(responses):
        return batches.encode_decoder(tokenizer, prompts, responses)  # says so
    common = hashlib.sha256(f"{_hash_of(tokenizer)} {tokenizer.bos_token_id} {tokenizer.chat_template}".encode())
    keys = [_key(common, *text) for text in zip(prompts, responses, strict=True)]
    texts = dict(zip(keys, zip(prompts, responses, strict=True), strict=True))
    known = {key: _KEPT[key] for key in texts if key in _KEPT}
    if new := [key for key in texts if key not in known]:
        made = batches.encode_decoder(tokenizer, *zip(*(texts[key] for key in new), strict=True))
        known |= dict(zip(new, made.ids, strict=True))
    _keep(known)
    return Encoded([known[key] for key in keys], None, np.zeros(len(keys), dtype=bool))


def _keep(tokens: dict[bytes, np.ndarray]) -> None:
    _KEPT.update(tokens)
    if _size(_KEPT) > MOST_TOKENS:
        _KEPT.clear()
        if _size(tokens) <= MOST_TOKENS:
            _KEPT.update(tokens)


def _size(tokens: dict[bytes, np.ndarray]) -> int:
    return sum(map(len, tokens.values()))


def _key(common: Any, prompt: Prompt, response: str) -> bytes:
    digest = common.copy()
    digest.update(json.dumps([[sorted(message.items()) for message in prompt], response]).encode())
    return digest.digest()


def _hash_of(tokenizer: PreTrainedTokenizerBase) -> str:
    known = _HASHES.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        vocabulary = tokenizer.backend_tokenizer.to_str()  # type: ignore[attr-defined]
        known = _HASHES[tokenizer] = len(tokenizer), hashlib.sha256(vocabulary.encode()).hexdigest()
    return known[1]
