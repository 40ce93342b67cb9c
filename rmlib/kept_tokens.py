"""Tokens of the last tables that were encoded: a ladder encodes the same pairs for every arm, seed and factor."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from rmlib import batches
from rmlib.batches import Encoded, Prompt

MOST_TABLES = 8
MOST_CHARACTERS = 20_000_000  # of responses; tokens of a larger table are not kept, for want of memory
# Of each tokenizer its size when it was hashed, and the hash: reading a vocabulary of 100,000 takes a while.
_HASHES: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, str]] = WeakKeyDictionary()
# By tokenizer, template and a hash of the texts: the texts themselves would take more room than their tokens.
_KEPT: OrderedDict[tuple[str, int | None, str, str], Encoded] = OrderedDict()


def encode_decoder(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]) -> Encoded:
    """`batches.encode_decoder`, remembered; the arrays are shared with other callers, so do not write to them."""
    if sum(map(len, responses)) > MOST_CHARACTERS:
        return batches.encode_decoder(tokenizer, prompts, responses)
    texts = _hash_of_texts(prompts, responses)
    key = (_hash_of(tokenizer), tokenizer.bos_token_id, str(tokenizer.chat_template), texts)
    if key not in _KEPT:
        _KEPT[key] = batches.encode_decoder(tokenizer, prompts, responses)
    _KEPT.move_to_end(key)
    while len(_KEPT) > MOST_TABLES:
        _KEPT.popitem(last=False)
    return _KEPT[key]


def _hash_of_texts(prompts: Sequence[Prompt], responses: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{len(prompts)} {len(responses)}".encode())  # where these differ, encoding says so
    for prompt, response in zip(prompts, responses, strict=False):
        digest.update(json.dumps([[sorted(message.items()) for message in prompt], response]).encode() + b"\n")
    return digest.hexdigest()


def _hash_of(tokenizer: PreTrainedTokenizerBase) -> str:
    known = _HASHES.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        vocabulary = tokenizer.backend_tokenizer.to_str()  # type: ignore[attr-defined]
        known = _HASHES[tokenizer] = len(tokenizer), hashlib.sha256(vocabulary.encode()).hexdigest()
    return known[1]
