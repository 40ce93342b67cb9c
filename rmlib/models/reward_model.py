"""The reward model: a transformers backbone and an fp32 head on the last token of the response."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rmlib.models import backbones, batches, tokens
from rmlib.models.adapted import base_of, with_adapter
from rmlib.models.attention import backend_for, last_layer
from rmlib.models.batches import Batch, Encoded, Group, PaddedBatch, SharedBatch
from rmlib.models.heads import new_head, output_layer
from rmlib.models.interface import ModelError, Prompt
from rmlib.records.hashing import fingerprint
from rmlib.records.progress import progress_bar

logger = logging.getLogger(__name__)

HEAD_FILE, CARD_FILE, ADAPTER_FOLDER = "head.safetensors", "reward_model.json", "adapter"


class RewardModel(nn.Module):
    """Backbone, head and tokenizer; `attributes` names the outputs of the head in order.

    Decoders are read at the last token that the chat template emits for the assistant turn, encoders by the masked mean
    of all tokens. `identity` is a hash of how the weights came about and names runs; `body_identity` is that of the
    backbone alone, and equals the backbone's name where it is a pretrained one that nothing has changed;
    `base_identity` is that of the weights beneath an adapter.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Linear | nn.Sequential,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        attributes: Sequence[str],
        identity: str,
        fresh_head: bool,
        body_identity: str,
        base_identity: str | None = None,
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone  # a PreTrainedModel, or a PeftModel around one
        self.head: Any = head.float()  # see rmlib.models.heads
        self.tokenizer = tokenizer
        self.name, self.attributes, self.fresh_head = name, tuple(attributes), fresh_head
        self.identity, self.body_identity, self.base_identity = identity, body_identity, base_identity or name
        base = base_of(backbone)
        self.config: Any = base.config
        self.kind = backbones.kind_of(self.config)
        self.max_length = backbones.position_limit(self.config) or 4096
        self.shared, self.layout = backbones.shares_prefix(base, self.max_length)
        self.attention = ""  # until a run has chosen, and compared, what its device does best
        self.ends_only = last_layer.cut(base, self.config) if self.shared else None

    # --- making, saving, loading --------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        backbone: str,
        attributes: Sequence[str] = ("helpfulness",),
        *,
        head_layers: int = 1,
        lora: dict[str, Any] | None = None,
        quantization: dict[str, Any] | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """A new reward model; every random weight is drawn after seeding, without touching the caller's generators.

        `lora` holds keywords of peft's LoraConfig, `quantization` of transformers' BitsAndBytesConfig; the head is
        neither adapted nor quantised. Raises BackboneError for an unknown backbone, ValueError for another number of
        head layers than 1 or 2.
        """
        identity = identity_of_new(
            backbone, attributes, head_layers=head_layers, lora=lora, quantization=quantization, seed=seed, dtype=dtype
        )
        as_published = backbone != backbones.EMBEDDED and lora is None and quantization is None
        body_identity = backbone if as_published else fingerprint("body", backbone, lora, quantization, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body, tokenizer = backbones.build(backbone, dtype=dtype, quantization=quantization)
            if lora is not None:
                body = with_adapter(body, lora)
            head = new_head(body.config.hidden_size, len(attributes), head_layers)
        return cls(
            body,
            head,
            tokenizer,
            name=backbone,
            attributes=attributes,
            identity=identity,
            fresh_head=True,
            body_identity=body_identity,
            base_identity=fingerprint("base", backbone, seed) if backbone == backbones.EMBEDDED else None,
        ).eval()

    def save(self, folder: str | Path, state: dict[str, Tensor] | None = None) -> None:
        """Write head, backbone, tokenizer and card; safetensors only.

        Of an adapted backbone only the adapter is written, of one that is as published nothing but its name. `state`:
        the whole state dict, where this process holds only a shard of the weights.
        """
        from rmlib.models.saving import save  # needs this module

        save(self, Path(folder), state)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        head: str = "keep",
        *,
        attributes: Sequence[str] | None = None,
        head_layers: int | None = None,
        quantization: dict[str, Any] | Literal["as_saved"] | None = "as_saved",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> Self:
        """A saved reward model, its head kept or drawn anew from `seed`; never redrawn unless asked.

        A model trained on a quantised backbone comes back on one; `quantization=None` takes the unquantised weights.
        Raises ModelError where the folder holds no reward model, or where `head="keep"` and the saved head has other
        attributes, another number of layers, or another shape, than asked for.
        """
        from rmlib.models.saving import load  # needs this module

        return load(cls, Path(folder), head, attributes, head_layers, quantization=quantization, dtype=dtype, seed=seed)

    def export(self, folder: str | Path) -> float:
        """Write a plain `AutoModelForSequenceClassification` with one label, and return its constant offset.

        That class has no bias: its reward plus the returned offset (also `reward_bias` in its config) is ours. The pad
        token is distinct from EOS, since transformers reads the reward at the last token that is not padding. The
        export is checked by reloading it. Raises ModelError for what the class cannot express: several outputs (fold
        them with `combining.weigh_attributes`), mean pooling, a head of two layers.
        """
        from rmlib.models.exporting import export  # needs this module

        return export(self, Path(folder))

    # --- rewards ------------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.output_layer.weight.device

    @property
    def output_layer(self) -> nn.Linear:
        """The last linear layer of the head, whose rows are the attributes."""
        return output_layer(self.head)

    @property
    def head_layers(self) -> int:
        """Linear layers of the head: 1 or 2."""
        return sum(isinstance(layer, nn.Linear) for layer in self.head.modules())

    def forward(self, batch: Batch | Float[Tensor, "*sequence hidden"]) -> Float[Tensor, "*sequence attribute"]:
        """Rewards of the responses in a batch (or of kept features), in fp32 whatever the backbone's precision."""
        return self.read(batch if isinstance(batch, Tensor) else self.pool(batch))

    def read(self, hidden: Float[Tensor, "sequence hidden"]) -> Float[Tensor, "sequence attribute"]:
        """The head, outside any autocast: bf16 spacing at a reward of 8 is 0.06, which makes ties."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.float())

    def pool(self, batch: Batch) -> Float[Tensor, "sequence hidden"]:
        """Final hidden state that the head reads, one per response."""
        if isinstance(batch, SharedBatch):
            inputs = batches.shared_inputs(batch) | {"row_layout": batch.layout}
            output = self.backbone(**inputs, use_cache=False)
            return output.last_hidden_state[0].index_select(0, batch.ends)
        return self._pool_padded(batch)

    def _pool_padded(self, batch: PaddedBatch) -> Float[Tensor, "sequence hidden"]:
        inputs: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if self.kind == "encoder":
            if getattr(self.config, "type_vocab_size", 1) > 1:  # BERT has two kinds of segments, RoBERTa one
                inputs["token_type_ids"] = batch.token_type_ids
            states = self.backbone(**inputs).last_hidden_state
            weight = batch.attention_mask.unsqueeze(-1).to(states.dtype)
            return (states * weight).sum(dim=1) / weight.sum(dim=1)
        inputs["position_ids"] = (batch.attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        states = self.backbone(**inputs, use_cache=False).last_hidden_state
        return states[torch.arange(len(states), device=states.device), batch.ends]

    def encode(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Encoded:
        """Tokens of each conversation; an encoder's texts are cut to its length (and marked), a decoder's never."""
        if self.kind == "encoder":
            return batches.encode_encoder(self.tokenizer, prompts, responses, self.max_length)
        return tokens.encode_decoder(self.tokenizer, prompts, responses)

    def collate(self, groups: Sequence[Group], *, shared: bool | None = None) -> Batch:
        """Groups as one batch on the model's device, in the shared layout where the backbone allows it."""
        if self.shared if shared is None else shared:
            safe = "segments" if self.device.type == "cuda" else backend_for(self.device, self.config)
            return batches.collate_shared(groups, self.attention or safe).to(self.device)
        pad = self.tokenizer.pad_token_id
        return batches.collate_padded(groups, 0 if pad is None else pad).to(self.device)

    def check_layout(self, groups: Sequence[Group], precision: str = "fp32") -> None:
        """Choose how a run computes, compare it with padded rows on some groups, and say what was chosen."""
        from rmlib.models.attention.choice import choose  # needs this module

        choose(self, groups, precision)

    def score(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        token_budget: int | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """Rewards, `[n]` for one attribute and `[n, attribute]` for several.

        `prompts` and `responses` are flat lists of equal length; equal prompts in a row are encoded once. A reward does
        not depend on what it is batched with (1e-5 in fp32; in bf16, on items of five real sets, at most 0.04 of the
        rewards' standard deviation, and no margin above 0.003 of it changed its sign: `benchmarks.invariance`).
        `token_budget` is that of one forward pass (default: 4,096 on a CPU, 16,384 elsewhere). Raises ModelError for a
        decoder's text over `max_length`.
        """
        rewards = self._in_batches(self, prompts, responses, len(self.attributes), token_budget, progress)
        return rewards[:, 0] if len(self.attributes) == 1 else rewards

    def features(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        *,
        token_budget: int | None = None,
        progress: bool = False,
    ) -> np.ndarray:
        """What the head reads, `[n, hidden]` in fp32; arguments and errors as for `score`."""
        return self._in_batches(self.pool, prompts, responses, self.config.hidden_size, token_budget, progress)

    @torch.no_grad()
    def _in_batches(
        self,
        function: Callable[[Batch], Tensor],
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        width: int,
        token_budget: int | None,
        progress: bool,
    ) -> np.ndarray:
        # Rows longer than this are no faster on a CPU, whose caches they leave, and cost memory.
        budget = token_budget or (4_096 if self.device.type == "cpu" else 16_384)
        groups = self.groups(prompts, responses)
        first = np.cumsum([0, *(len(item.ids) for item in groups)])
        result = np.empty((len(responses), width), dtype=np.float32)
        was_training = self.training
        self.eval()
        with progress_bar(total=len(responses), unit="response", show=progress, leave=False) as bar:
            for indices in batches.pack(groups, budget, shared=self.shared):
                output = function(self.collate([groups[index] for index in indices]))
                rows = np.concatenate([np.arange(first[index], first[index + 1]) for index in indices])
                result[rows] = output.float().cpu().numpy()
                bar.update(len(rows))
        self.train(was_training)
        return result

    def groups(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Group]:
        """Encoded texts, those of equal prompts in a row together; arguments and errors as for `score`."""
        encoded = self.encode(prompts, responses)
        self.refuse_long(encoded)
        if encoded.cut.any():
            logger.warning("%d of %d texts were cut to %d tokens", encoded.cut.sum(), len(encoded.cut), self.max_length)
        return batches.group(encoded, list(_runs_of_equal(prompts)))

    def refuse_long(self, encoded: Encoded) -> None:
        """Raise ModelError where a text is longer than the backbone's positions."""
        refuse_long(encoded, self.max_length, self.name)


def refuse_long(encoded: Encoded, max_length: int, name: str) -> None:
    """Raise ModelError where a text has more tokens than the model of this name has positions."""
    longest = max((len(row) for row in encoded.ids), default=0)
    if longest > max_length:
        raise ModelError(
            f"a text of {longest} tokens exceeds the {max_length} positions of {name}; leave it out or shorten it, "
            "or take a backbone with longer positions"
        )


def _runs_of_equal(prompts: Sequence[Prompt]) -> Iterator[int]:
    """Lengths of the runs of equal prompts."""
    for _, run in groupby(prompts, key=lambda prompt: [(m["role"], m["content"]) for m in prompt]):
        yield sum(1 for _ in run)


def identity_of_new(
    backbone: str,
    attributes: Sequence[str],
    *,
    head_layers: int = 1,
    lora: dict[str, Any] | None = None,
    quantization: dict[str, Any] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> str:
    """The `identity` of what `RewardModel.create` would make, without making it."""
    asked = (backbone, tuple(attributes), lora, quantization, seed, str(dtype))
    return fingerprint("create", *asked, *deeper(head_layers))


def deeper(n_layers: int) -> tuple[str, ...]:
    """What a head of more than one layer adds to a model's identity; those of one layer keep the names they had."""
    return () if n_layers == 1 else (f"head of {n_layers} layers",)
