"""Tokens of the last tables that were encoded: a ladder encodes the same pairs for every arm, seed and factor."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from rmlib import batches
from rmlib.batches import Encoded, Prompt

MOST_TABLES = 8
MOST_CHARACTERS = 20_000_000  # of responses; tokens of a larger table are not kept, for want of memory
# Of each tokenizer its size when it was hashed, and the hash: reading a vocabulary of 100,000 takes a while.
_HASHES: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Writer:
    """A tokenizer; equal to every other that makes the same tokens of a conversation."""

    vocabulary: str
    bos: int | None
    template: str
    tokenizer: PreTrainedTokenizerBase = field(compare=False, repr=False)


def encode_decoder(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]) -> Encoded:
    """`batches.encode_decoder`, remembered; the arrays are shared with other callers, so do not write to them."""
    if sum(map(len, responses)) > MOST_CHARACTERS:
        return batches.encode_decoder(tokenizer, prompts, responses)
    writer = _Writer(_hash_of(tokenizer), tokenizer.bos_token_id, str(tokenizer.chat_template), tokenizer)
    hashable = tuple(tuple(tuple(sorted(message.items())) for message in prompt) for prompt in prompts)
    return _encoded(writer, hashable, tuple(responses))


@lru_cache(maxsize=MOST_TABLES)
def _encoded(writer: _Writer, prompts: tuple, responses: tuple[str, ...]) -> Encoded:
    messages = [[dict(message) for message in prompt] for prompt in prompts]
    return batches.encode_decoder(writer.tokenizer, messages, responses)


def _hash_of(tokenizer: PreTrainedTokenizerBase) -> str:
    known = _HASHES.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        vocabulary = tokenizer.backend_tokenizer.to_str()  # type: ignore[attr-defined]
        known = _HASHES[tokenizer] = len(tokenizer), hashlib.sha256(vocabulary.encode()).hexdigest()
    return known[1]
