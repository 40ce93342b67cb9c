"""The reward model: how one is created, saved, loaded and exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from rmlib.models import backbones
from rmlib.models.adapters import with_adapter
from rmlib.models.exporting import export
from rmlib.models.network import RewardNetwork, new_head
from rmlib.models.saving import load, save
from rmlib.records.hashing import fingerprint


class RewardModel(RewardNetwork):
    """A transformers backbone and an fp32 head on the last token of the response; see `RewardNetwork` for its parts."""

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
        identity = cls.identity_of_new(
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
        base = fingerprint("base", backbone, seed) if backbone == backbones.EMBEDDED else None
        return cls(
            body, head, tokenizer, name=backbone, attributes=attributes, fresh_head=True,
            identity=identity, body_identity=body_identity, base_identity=base,
        )  # fmt: skip

    @staticmethod
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
        """The `identity` of what `create` would make, without making it."""
        return fingerprint("create", backbone, tuple(attributes), head_layers, lora, quantization, seed, str(dtype))

    def save(self, folder: str | Path, state: dict[str, Tensor] | None = None) -> None:
        """Write head, backbone, tokenizer and card; safetensors only.

        Of an adapted backbone only the adapter is written, of one that is as published nothing but its name. `state`:
        the whole state dict, where this process holds only a shard of the weights.
        """
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
        return load(cls, Path(folder), head, attributes, head_layers, quantization=quantization, dtype=dtype, seed=seed)

    def export(self, folder: str | Path) -> float:
        """Write a plain `AutoModelForSequenceClassification` with one label, and return its constant offset.

        That class has no bias: its reward plus the returned offset (also `reward_bias` in its config) is ours. The pad
        token is distinct from EOS, since transformers reads the reward at the last token that is not padding. The
        export is checked by reloading it. Raises ModelError for what the class cannot express: several outputs (fold
        them with `combining.weigh_attributes`), mean pooling, a head of two layers.
        """
        return export(self, Path(folder))
