"""From text to tokens: one chat template, whole texts, and what was encoded before is remembered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Int
from transformers import PreTrainedTokenizerBase

from rmlib.models.interface import ModelError, Prompt
from rmlib.records.hashing import fingerprint

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n\n{% endfor %}{{ eos_token or '' }}"
)
# What Llama 3.1's template prints when it has no clock. Any fixed date would do: with today's, rewards drift daily.
TEMPLATE_DATE = "26 Jul 2024"
STOPPED_CLOCK = "{%- macro strftime_now(format) -%}" + TEMPLATE_DATE + "{%- endmacro %}"
# A tokenizer's output holds some hundred bytes a token until it is taken over as four.
TEXTS_AT_ONCE = 1024
MOST_TOKENS = 20_000_000  # of all texts together: 80 MB
# Of each tokenizer its size when it was hashed, and the hash: reading a vocabulary of 100,000 takes a while.
_HASHES: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, str]] = WeakKeyDictionary()
# By tokenizer with template, prompt and response, all hashed: texts would take more room than their tokens.
_KEPT: dict[str, Int[np.ndarray, "token"]] = {}


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


def render(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str) -> str:
    """The conversation as the chat template writes it, response included, with the clock stopped at a fixed date."""
    messages = [*prompt, {"role": "assistant", "content": response}]
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = STOPPED_CLOCK + template
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, date_string=TEMPLATE_DATE)
    assert isinstance(text, str)
    return text


def encode_decoder(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]) -> Encoded:
    """Tokens of each rendered conversation, with exactly one BOS where the tokenizer uses one. Never cut.

    They are remembered text by text, since a ladder encodes the same texts for every arm and seed: the arrays are
    shared, do not write to them. Once more than MOST_TOKENS would be kept, all that is not asked for now is forgotten.
    """
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses; give one prompt for each response")
    common = f"{hash_of_tokenizer(tokenizer)} {tokenizer.bos_token_id} {tokenizer.chat_template}"
    keys = [fingerprint(common, list(prompt), response) for prompt, response in zip(prompts, responses, strict=True)]
    texts = dict(zip(keys, zip(prompts, responses, strict=True), strict=True))
    known = {key: _KEPT[key] for key in texts if key in _KEPT}
    new = [key for key in texts if key not in known]
    for start in range(0, len(new), TEXTS_AT_ONCE):
        some = new[start : start + TEXTS_AT_ONCE]
        known |= zip(some, tokens_of(tokenizer, [render(tokenizer, *texts[key]) for key in some]), strict=True)
    if sum(map(len, (_KEPT | known).values())) > MOST_TOKENS:
        _KEPT.clear()
    if sum(map(len, known.values())) <= MOST_TOKENS:
        _KEPT.update(known)
    return Encoded([known[key] for key in keys], None, np.zeros(len(keys), dtype=bool))


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
    batch = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"] if texts else []
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and bos in tokenizer("a")["input_ids"]
    ids = [np.array(row, dtype=np.int32) for row in batch]
    if adds_bos:  # a template that writes the BOS itself must not get a second one
        ids = [row if row[:1] == bos else np.append(np.int32(bos), row) for row in ids]
    return ids


def encode_encoder(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str], max_length: int
) -> Encoded:
    """Prompt and response as the two segments of an encoder.

    Where both do not fit `max_length` tokens the prompt loses its beginning first, then the response its end; `cut`
    says which texts were shortened.
    """
    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_truncation()
    backend.no_padding()
    texts = ["\n".join(m["content"] for m in p) for p in prompts]
    first = backend.encode_batch(texts, add_special_tokens=False)
    second = backend.encode_batch(list(responses), add_special_tokens=False)
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
