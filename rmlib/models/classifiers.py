"""Any `AutoModelForSequenceClassification` as a reward model, from a folder or the hub, with its own chat template.

A decoder with a linear `score` layer becomes a `RewardModel`, so that a prompt is encoded once for all its responses.
Everything else (encoders, whose heads read a pooled token) runs through its own forward. Rewards are those that
transformers gives for one text without padding.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from rmlib.models import backbones, batches, templates, tokens
from rmlib.models.interface import ModelError, Prompt, Response
from rmlib.models.reward_model import RewardModel
from rmlib.models.tokens import Encoded
from rmlib.pairs.messages import conversations
from rmlib.records import paths
from rmlib.records.hashing import fingerprint

logger = logging.getLogger(__name__)

Weights = Mapping[str, float] | Sequence[float]


class DecoderClassifier(RewardModel):
    """A decoder with a linear score layer, of several logits the weighted sum.

    `skipped` is a token id that transformers does not read a reward at: its class takes the last token that is not
    padding, so where padding is the end token of the template it reads one token earlier, and so was the model trained.
    """

    skipped: int | None = None

    def encode(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Encoded:
        """Whole texts, up to the token at which the reward is read."""
        encoded = super().encode(prompts, responses)
        if self.skipped is None:
            return encoded
        others = [np.flatnonzero(row != self.skipped) for row in encoded.ids]
        # A text of nothing else keeps its first token, which transformers then reads.
        ends = [int(places[-1]) + 1 if len(places) else 1 for places in others]
        return Encoded([row[:end] for row, end in zip(encoded.ids, ends, strict=True)], None, encoded.cut)


class PlainClassifier(torch.nn.Module):
    """A classifier that runs through its own forward: one row a response, padded only where it is an encoder.

    An encoder without a chat template takes prompt and response as its two segments. Over-long texts are refused.
    """

    def __init__(
        self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: torch.Tensor, name: str
    ) -> None:
        super().__init__()
        self.network, self.tokenizer, self.row, self.name = network, tokenizer, row, name
        self.masks_padding = backbones.kind_of(network.config) == "encoder"
        if network.config.pad_token_id is None and not self.masks_padding:
            # transformers takes several rows only with a pad id. Rows are of one length and this is no token's, so that
            # it reads each at its last token, as it does a single row.
            network.config.pad_token_id = -1
        self.max_length = backbones.position_limit(network.config)

    @property
    def device(self) -> torch.device:
        return self.network.device

    def encode(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Encoded:
        """Tokens of each conversation; `cut` marks those that do not fit."""
        if self.tokenizer.chat_template is not None:
            return _templated(self.tokenizer, prompts, responses)
        return tokens.encode_encoder(self.tokenizer, prompts, responses, self.max_length)

    @torch.no_grad()
    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, token_budget: int = 16_384
    ) -> Float[np.ndarray, "response"]:
        """Rewards of flat lists of equal length. Raises ModelError for a text that is longer than the positions."""
        encoded = self.encode(*conversations(prompts, responses))
        encoded.refuse_unknown(self.network.config, self.name)
        if n_long := int(encoded.exceeds(self.max_length).sum()):  # an end cut off in silence is another text
            raise ModelError(
                f"{n_long} of {len(encoded.ids)} texts exceed the {self.max_length} positions of {self.name}; "
                "leave them out (skip_long), and they are counted as skipped"
            )
        groups = batches.group(encoded, [1] * len(encoded.ids))
        rewards = np.empty(len(groups), dtype=np.float32)
        row = self.row[0].to(self.device)
        for some, places in batches.packed(groups, token_budget, shared=False, padded=self.masks_padding):
            batch = batches.collate_padded(some, self.tokenizer.pad_token_id or 0).to(self.device)
            logits = self.network(**batches.inputs_of(batch, self.network.config)).logits
            rewards[places] = (logits.float() @ row).cpu().numpy()
        return rewards


def load_classifier(
    source: str | Path, *, weights: Weights | None = None, dtype: torch.dtype = torch.float32,
    read_at: str = "transformers", chat: Mapping[str, Any] | None = None,
) -> DecoderClassifier | PlainClassifier:  # fmt: skip
    """A sequence classifier, from a folder or the hub in safetensors, as a scorer with one reward a response.

    Several logits take `weights`, by the labels of its config or in their order. A decoder's reward is `read_at`
    "transformers", where its class reads it (the last token that is not padding), or at the "end", the last token. They
    differ where the model pads with the end token of its template. `chat` says how conversations are written, in the
    keywords of `templates.adjust`. Raises BackboneError where it cannot be loaded or
    lacks weights (a head that would be drawn at random, for instance), ModelError for weights that do not fit.
    """
    if read_at not in ("transformers", "end"):
        raise ModelError(f"read_at must be 'transformers' or 'end', got {read_at!r}")
    network, tokenizer = backbones.read_whole(AutoModelForSequenceClassification, str(source), dtype=dtype)
    if chat:
        templates.adjust(tokenizer, **chat)
    name = paths.public_name(str(source))
    labels = [str(network.config.id2label[index]) for index in range(network.config.num_labels)]
    row = torch.tensor([list(weight_of_each(name, labels, weights).values())])
    score, body = getattr(network, "score", None), network.base_model
    if backbones.kind_of(network.config) != "decoder" or not isinstance(score, torch.nn.Linear) or body is network:
        return PlainClassifier(network, tokenizer, row, name)
    backbones.prepare_tokenizer(tokenizer, name)
    backbones.prepare_attention(body)
    identity = fingerprint("classifier", name, row.tolist())
    model = DecoderClassifier(
        body, _folded(score, row), tokenizer, name=name, attributes=("reward",), fresh_head=False,
        identity=identity, body_identity=fingerprint("classifier", name),
    )  # fmt: skip
    model.skipped = _skipped(model, network.config.pad_token_id, read_at)
    return model


def weight_of_each(name: str, outputs: Sequence[str], weights: Weights | None) -> dict[str, float]:
    """The weight of each output of a model, by name; one output needs none. Raises ModelError where they do not fit."""
    if weights is None:
        if len(outputs) > 1:
            raise ModelError(f"{name} has the outputs {', '.join(outputs)}: give each a weight, by name or as a list")
        weights = [1.0]
    if not isinstance(weights, Mapping):
        if len(weights) != len(outputs):
            raise ModelError(f"{name}: {len(weights)} weights for the {len(outputs)} outputs {', '.join(outputs)}")
        weights = dict(zip(outputs, weights, strict=True))
    if set(weights) != set(outputs):
        raise ModelError(f"{name}: weights are for {sorted(weights)}, its outputs are {list(outputs)}")
    return {output: float(weights[output]) for output in outputs}


def _folded(score: torch.nn.Linear, row: Float[torch.Tensor, "1 label"]) -> torch.nn.Linear:
    """The score layer with one output, the weighted sum of its logits."""
    head = torch.nn.Linear(score.in_features, 1)
    head.weight.data = row @ score.weight.data.float()
    head.bias.data = torch.zeros(1) if score.bias is None else row @ score.bias.data.float()
    return head


def _skipped(model: RewardModel, pad_id: int | None, read_at: str) -> int | None:
    if pad_id is None:
        return None
    last = int(model.encode([[{"role": "user", "content": "?"}]], ["!"]).ids[0][-1])
    if last == pad_id:
        where = "one token before it, as transformers does" if read_at == "transformers" else "at it"
        logger.warning("%s pads with the token that ends a text; its reward is read %s", model.name, where)
    return pad_id if read_at == "transformers" else None


def _templated(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Encoded:
    """Conversations in the tokenizer's own template, with its special tokens where the template writes none."""
    written = [
        templates.rendered(tokenizer, prompt, response, row)
        for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
    ]
    tokens.warn_of_missing(Counter(what for _, left_out in written for what in left_out), len(written))
    texts = [text for text, _ in written]
    first = tokenizer.cls_token or tokenizer.bos_token or ""
    before, behind = tokens.added_around(tokenizer)
    rows = [
        ids if first and text.startswith(first) else np.array([*before, *ids, *behind])
        for text, ids in zip(texts, tokens.encode_texts(tokenizer, texts), strict=True)
    ]
    return Encoded(rows, None, np.zeros(len(rows), dtype=bool))
