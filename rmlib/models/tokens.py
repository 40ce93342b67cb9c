"""From text to tokens: one chat template, whole texts, and what was encoded before is remembered."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Int
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from rmlib.models.interface import ModelError, Prompt
from rmlib.models.templates import MARK, reads_special_tokens, rendered, unmarked
from rmlib.pairs.messages import EXTRAS, Response, text_of
from rmlib.records.hashing import fingerprint

logger = logging.getLogger(__name__)

# A tokenizer's output holds some hundred bytes a token until it is taken over as four.
TEXTS_AT_ONCE = 1024
MOST_TOKENS = 20_000_000  # of all texts together: 80 MB
# Of each tokenizer its size when it was hashed, and the hash: reading a vocabulary of 100,000 takes a while.
_HASHES: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, str]] = WeakKeyDictionary()
# By tokenizer with template, prompt and response, all hashed: texts would take more room than their tokens.
_KEPT: dict[str, Int[np.ndarray, "token"]] = {}
# By hash of a tokenizer, what `_without_specials` makes of it.
_OTHERS: dict[str, tuple[dict[str, str], Tokenizer, dict[int, int]]] = {}
_ALIAS = "\U0010fffd"  # private use, around the number of a special token of the template


@dataclass(frozen=True)
class Encoded:
    """Token ids of whole texts (prompt and response together), one int32 array each; `cut` marks shortened texts."""

    ids: list[np.ndarray]
    type_ids: list[np.ndarray] | None
    cut: np.ndarray

    def exceeds(self, max_length: int) -> Bool[np.ndarray, "text"]:
        """Which texts do not fit whole: longer than this, or shortened until they did."""
        return self.cut | (np.array([len(row) for row in self.ids], dtype=int) > max_length)

    def refuse_long(self, max_length: int, name: str) -> None:
        """Raise ModelError where a text has more tokens than the model of this name has positions."""
        longest = max((len(row) for row in self.ids), default=0)
        if longest > max_length:
            raise ModelError(
                f"a text of {longest} tokens exceeds the {max_length} positions of {name}; leave it out or shorten it, "
                "or take a backbone with longer positions"
            )

    def refuse_unknown(self, config: Any, name: str) -> None:
        """Raise ModelError where a text has a token that the model of this config has no row of embeddings for."""
        n_rows = getattr(config.get_text_config(), "vocab_size", None)
        largest = max((int(row.max()) for row in self.ids if len(row)), default=0)
        if n_rows is not None and largest >= n_rows:
            raise ModelError(
                f"a text has token {largest}, and {name} has embeddings of {n_rows} tokens: its tokenizer was given "
                "tokens that the model does not know; take the tokenizer that belongs to it, or resize its embeddings"
            )


def encode_decoder(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[Response]
) -> Encoded:
    """Tokens of each rendered conversation, with exactly one BOS where the tokenizer uses one. Never cut.

    What the chat template does not write as it stands is counted in a warning; ConversationError (with its row) for a
    conversation that it refuses, or whose answer it leaves out. Tokens are remembered text by text, since a ladder
    encodes the same texts for every arm and seed: the arrays are shared, do not write to them. Once more than
    MOST_TOKENS would be kept, all that is not asked for now is forgotten.
    """
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses; give one prompt for each response")
    common = f"{hash_of_tokenizer(tokenizer)} {tokenizer.bos_token_id} {tokenizer.chat_template}"
    keys = [fingerprint(common, list(prompt), response) for prompt, response in zip(prompts, responses, strict=True)]
    places = dict[str, int]()
    for row, key in enumerate(keys):
        places.setdefault(key, row)
    known = {key: _KEPT[key] for key in places if key in _KEPT}
    new = [key for key in places if key not in known]
    missing = Counter[str]()
    for start in range(0, len(new), TEXTS_AT_ONCE):
        some = new[start : start + TEXTS_AT_ONCE]
        written = [rendered(tokenizer, prompts[row], responses[row], row) for row in map(places.__getitem__, some)]
        missing.update(what for _, left_out in written for what in left_out)
        known |= zip(some, tokens_of(tokenizer, [text for text, _ in written]), strict=True)
    warn_of_missing(missing, len(new))
    if sum(map(len, (_KEPT | known).values())) > MOST_TOKENS:
        _KEPT.clear()
    if sum(map(len, known.values())) <= MOST_TOKENS:
        _KEPT.update(known)
    return Encoded([known[key] for key in keys], None, np.zeros(len(keys), dtype=bool))


def warn_of_missing(missing: Counter[str], n_conversations: int) -> None:
    """Log what chat templates left out or rewrote (`templates.rendered`), counted in conversations."""
    if missing:
        counts = ", ".join(f"{what} in {count}" for what, count in missing.most_common())
        logger.warning("of %d conversations the chat template leaves out or rewrites: %s", n_conversations, counts)


def hash_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """16 hex digits of all that decides how it cuts a text, the chat template apart."""
    known = _HASHES.get(tokenizer)
    if known is None or known[0] != len(tokenizer):
        parts = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
        # What the last call padded or cut is no part of the tokenizer.
        own = {name: part for name, part in parts.items() if name not in ("padding", "truncation")}
        known = _HASHES[tokenizer] = len(tokenizer), fingerprint(own)
    return known[1]


def tokens_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Int[np.ndarray, "token"]]:
    """Tokens of rendered texts, with exactly one BOS where the tokenizer uses one.

    The tokenizer works through the texts in parallel, unless TOKENIZERS_PARALLELISM=false.
    """
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and bos in tokenizer("a")["input_ids"]
    ids = encode_texts(tokenizer, texts)
    if adds_bos:  # a template that writes the BOS itself must not get a second one
        ids = [row if row[:1] == bos else np.append(np.int32(bos), row) for row in ids]
    return ids


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Int[np.ndarray, "token"]]:
    """Tokens of rendered texts and nothing else: special tokens are those of the template, what is marked is text."""
    marked = [row for row, text in enumerate(texts) if MARK in text]
    plain = [text for text in texts if MARK not in text] if marked else list(texts)
    batch = tokenizer(plain, add_special_tokens=False, return_attention_mask=False)["input_ids"] if plain else []
    ids = [np.array(row, dtype=np.int32) for row in batch]
    for row, own in zip(marked, _encode_marked(tokenizer, [texts[row] for row in marked]), strict=True):
        ids.insert(row, own)
    return ids


def added_around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and behind a text when it is asked to."""
    bare, whole = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (False, True))
    start = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _encode_marked(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Int[np.ndarray, "token"]]:
    """Tokens of texts in which special tokens are marked where they are text.

    They go through a second tokenizer that knows the template's special tokens by other names, which no text has.
    """
    if not texts:
        return []
    aliases, other, own_id = _without_specials(tokenizer)
    pattern = re.compile("|".join(map(re.escape, sorted(aliases, key=len, reverse=True))))
    renamed = [unmarked(tokenizer, pattern.sub(lambda found: aliases[found[0]], text)) for text in texts]
    for text, own in zip(texts, renamed, strict=True):
        if own.count(_ALIAS) != 2 * len(pattern.findall(text)):
            raise ModelError("a text holds both a special token and the character U+10FFFD, which stands in for one")
    found = other.encode_batch_fast(renamed, add_special_tokens=False)
    return [np.array([own_id.get(one, one) for one in row.ids], dtype=np.int32) for row in found]


def _without_specials(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, str], Tokenizer, dict[int, int]]:
    """Other names of the special tokens, a tokenizer that knows them by these, and the ids for which its own stand."""
    key = hash_of_tokenizer(tokenizer)
    if key not in _OTHERS:
        parts = json.loads(tokenizer.backend_tokenizer.to_str())
        aliases: dict[str, str] = {}
        ids = {}
        for number, token in enumerate(parts["added_tokens"]):
            if token["special"]:
                aliases[token["content"]] = token["content"] = f"{_ALIAS}{number}{_ALIAS}"
                token["normalized"] = False
            ids[token["content"]] = token["id"]
        parts |= {"post_processor": None, "padding": None, "truncation": None}
        other = Tokenizer.from_str(json.dumps(parts))
        number_there = other.get_vocab(with_added_tokens=True)
        _OTHERS[key] = aliases, other, {number_there[content]: own for content, own in ids.items()}
    return _OTHERS[key]


def encode_encoder(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[Response], max_length: int
) -> Encoded:
    """Prompt and response as the two segments of an encoder, texts alone: what else messages carry is counted.

    Where both do not fit `max_length` tokens the prompt loses its beginning first, then the response its end; `cut`
    says which texts were shortened.
    """
    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_truncation()
    backend.no_padding()
    texts = ["\n".join(m["content"] for m in p) for p in prompts]
    answers = [text_of(response) for response in responses]
    others = sum(not isinstance(response, str) for response in responses)
    others += sum(message.get(EXTRAS) is not None for prompt in prompts for message in prompt)
    if others:
        logger.warning("an encoder reads texts alone: what else %d messages carry is left out", others)
    meaning = backend.encode_special_tokens
    backend.encode_special_tokens = not reads_special_tokens(tokenizer)
    first = backend.encode_batch(texts, add_special_tokens=False)
    second = backend.encode_batch(answers, add_special_tokens=False)
    backend.encode_special_tokens = meaning
    room = max_length - backend.num_special_tokens_to_add(True)
    ids, type_ids, cut = [], [], []
    for prompt, response in zip(first, second, strict=True):
        cut.append(len(prompt) + len(response) > room)
        response.truncate(room)
        prompt.truncate(room - len(response), direction="left")
        joined = backend.post_process(prompt, response, True)
        ids.append(np.array(joined.ids, dtype=np.int32))
        type_ids.append(np.array(joined.type_ids, dtype=np.int32))
    return Encoded(ids, type_ids, np.array(cut, dtype=bool))
