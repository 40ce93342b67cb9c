"""The reward model: how one is created, saved (head, backbone or adapter, tokenizer, a card), loaded and exported."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmlib.models import backbones, templates
from rmlib.models.adapters import with_adapter
from rmlib.models.backbones import is_adapted
from rmlib.models.exporting import export
from rmlib.models.interface import ModelError
from rmlib.models.network import Head, RewardNetwork, draw_head, new_head
from rmlib.records.hashing import fingerprint

HEAD_FILE, CARD_FILE, ADAPTER_FOLDER = "head.safetensors", "reward_model.json", "adapter"
TEMPLATE_FILE = "chat_template.jinja"  # as transformers calls it
REQUIRED = ("backbone", "attributes", "identity", "body_identity", "adapted", "fresh_head", "head_layers")


class RewardModel(RewardNetwork):
    """A transformers backbone and an fp32 head on the last token of the response; see `RewardNetwork` for its parts."""

    @classmethod
    def create(
        cls, backbone: str, attributes: Sequence[str] = ("helpfulness",), *, head_layers: int = 1,
        lora: dict[str, Any] | None = None, quantization: dict[str, Any] | None = None,
        seed: int = 0, dtype: torch.dtype = torch.float32, chat: dict[str, Any] | None = None,
    ) -> Self:  # fmt: skip
        """A new reward model; every random weight is drawn after seeding, without touching the caller's generators.

        `lora` holds keywords of peft's LoraConfig, `quantization` of transformers' BitsAndBytesConfig; the head is
        neither adapted nor quantised. `chat` says how conversations are written, in the keywords of `templates.adjust`:
        chat_template, chat_template_kwargs, system_message, special_tokens. Raises BackboneError for an unknown
        backbone, ModelError for a `chat` that its template does not take, ValueError for another number of head layers
        than 1 or 2.
        """
        identity = cls.identity_of_new(
            backbone, attributes, head_layers=head_layers, lora=lora, quantization=quantization, seed=seed, dtype=dtype,
            chat=chat,
        )  # fmt: skip
        as_published = backbone != backbones.EMBEDDED and lora is None and quantization is None
        body_identity = backbone if as_published else fingerprint("body", backbone, lora, quantization, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            body, tokenizer = backbones.build(backbone, dtype=dtype, quantization=quantization)
            if chat:
                templates.adjust(tokenizer, **templates.checked_chat(chat))
            if lora is not None:
                body = with_adapter(body, lora)
            head = new_head(body.config.hidden_size, len(attributes), head_layers)
        base = fingerprint("base", backbone, seed) if backbone == backbones.EMBEDDED else None
        model = cls(
            body, head, tokenizer, name=backbone, attributes=attributes, fresh_head=True,
            identity=identity, body_identity=body_identity, base_identity=base,
        )  # fmt: skip
        model.chat = chat or {}
        return model

    @staticmethod
    def identity_of_new(
        backbone: str, attributes: Sequence[str], *, head_layers: int = 1,
        lora: dict[str, Any] | None = None, quantization: dict[str, Any] | None = None,
        seed: int = 0, dtype: torch.dtype = torch.float32, chat: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """The `identity` of what `create` would make, without making it."""
        parts = (backbone, tuple(attributes), head_layers, lora, quantization, seed, str(dtype))
        return fingerprint("create", *parts, *([chat] if chat else []))

    def save(self, folder: str | Path, state: dict[str, Tensor] | None = None) -> None:
        """Write head, backbone, tokenizer and card; safetensors only.

        Of an adapted backbone only the adapter is written, of one that is as published nothing but its name. `state`:
        the whole state dict, where this process holds only a shard of the weights.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict() if state is None else state
        save_file({name: weight.contiguous() for name, weight in _part(state, "head.").items()}, folder / HEAD_FILE)
        self._save_backbone(folder, _part(state, "backbone."))
        self.tokenizer.save_pretrained(folder)
        card = {
            "format_version": 1, "backbone": self.name, "attributes": self.attributes,
            "identity": self.identity, "body_identity": self.body_identity,
            "adapted": is_adapted(self.backbone), "fresh_head": self.fresh_head, "head_layers": self.head_layers,
            "has_template": (folder / TEMPLATE_FILE).is_file(),
        }  # fmt: skip
        if self.chat:
            card["chat"] = self.chat
        if self.base_identity != self.name:
            card["base_identity"] = self.base_identity
        config = getattr(self.config, "quantization_config", None)
        if config is not None:  # as keywords of transformers' BitsAndBytesConfig
            keywords = config if isinstance(config, dict) else config.to_diff_dict()
            card["quantization"] = {name: value for name, value in keywords.items() if not name.startswith("_")}
        (folder / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n")

    def _save_backbone(self, folder: Path, state: dict[str, Tensor]) -> None:
        if not is_adapted(self.backbone):
            if self.body_identity != self.name:
                self.backbone.save_pretrained(folder, state_dict=state)
            return
        self.backbone.save_pretrained(folder / ADAPTER_FOLDER, state_dict=state)
        if self.base_identity != self.name:  # weights that no hub has, beneath the adapter
            names = {name.removeprefix("base_model.model."): name for name in state if ".lora_" not in name}
            base = {short.replace(".base_layer.", "."): state[name] for short, name in names.items()}
            self.backbone.get_base_model().save_pretrained(folder, state_dict=base)

    @classmethod
    def load(
        cls, folder: str | Path, head: str = "keep", *,
        attributes: Sequence[str] | None = None, head_layers: int | None = None,
        quantization: dict[str, Any] | Literal["as_saved"] | None = "as_saved",
        dtype: torch.dtype = torch.float32, seed: int = 0,
    ) -> Self:  # fmt: skip
        """A saved reward model, its head kept or drawn anew from `seed`; never redrawn unless asked.

        A model trained on a quantised backbone comes back on one; `quantization=None` takes the unquantised weights.
        Raises ModelError where the folder holds no reward model, or where `head="keep"` and the saved head has other
        attributes, another number of layers, or another shape, than asked for.
        """
        folder = Path(folder)
        card = read_card(folder)
        wanted, n_layers = _checked_head(folder, card, head, attributes, head_layers)
        if quantization == "as_saved":
            quantization = card.get("quantization")
        # Under its name as long as nothing has changed the backbone's own weights, else they lie in the folder.
        own = "base_identity" in card if card["adapted"] else card["body_identity"] != card["backbone"]
        source = str(folder) if own else card["backbone"]
        body, tokenizer = backbones.build(source, dtype=dtype, quantization=quantization)
        if card["adapted"]:
            from peft import PeftModel  # slow to import

            body = PeftModel.from_pretrained(body, str(folder / ADAPTER_FOLDER), is_trainable=True)
        if (folder / TEMPLATE_FILE).is_file():  # the saved one: a backbone that is as published has its own
            tokenizer.chat_template = (folder / TEMPLATE_FILE).read_bytes().decode()
        elif card.get("has_template"):
            problem = f"{folder.name} lacks {TEMPLATE_FILE}, the chat template that the model was saved with"
            raise ModelError(f"{problem}; copy the model again, whole")
        new = draw_head(body.config.hidden_size, len(wanted), seed, n_layers)
        identity, fresh = fingerprint("redraw", card["identity"], wanted, seed, n_layers), True
        if head == "keep":
            _read_head(new, folder)
            identity, fresh = card["identity"], card["fresh_head"]
        model = cls(
            body, new, tokenizer, name=card["backbone"], attributes=wanted, fresh_head=fresh,
            identity=identity, body_identity=card["body_identity"], base_identity=card.get("base_identity"),
        )  # fmt: skip
        model.chat = card.get("chat", {})
        return model

    def export(self, folder: str | Path) -> float:
        """Write a plain `AutoModelForSequenceClassification` with one label, and return its constant offset.

        That class has no bias: its reward plus the returned offset (also `reward_bias` in its config) is ours. The pad
        token is distinct from EOS, since transformers reads the reward at the last token that is not padding. The
        export is checked by reloading it. Raises ModelError for what the class cannot express: several outputs (fold
        them with `combining.weigh_attributes`), mean pooling, a head of two layers.
        """
        return export(self, Path(folder))


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _checked_head(
    folder: Path, card: dict[str, Any], head: str, attributes: Sequence[str] | None, head_layers: int | None
) -> tuple[tuple[str, ...], int]:
    """Attributes and layers of the head to come; ModelError where it is to be kept and differs."""
    if head not in ("keep", "redraw"):
        raise ModelError(f"head must be 'keep' or 'redraw', got {head!r}")
    wanted, n_layers = list(attributes or card["attributes"]), head_layers or card["head_layers"]
    if head == "keep" and (wanted, n_layers) != (card["attributes"], card["head_layers"]):
        raise ModelError(
            f"{folder.name}: the saved head has attributes {card['attributes']} and {card['head_layers']} layer(s), "
            f"asked for {wanted} and {n_layers}; use head='redraw' to draw a new head on the same backbone"
        )
    return tuple(wanted), n_layers


def read_card(folder: Path) -> dict[str, Any]:
    """The card of a saved model. Raises ModelError where there is none, or one that lacks something."""
    if not (folder / CARD_FILE).is_file():
        raise ModelError(f"{folder.name} holds no reward model: {CARD_FILE} is missing; write one with model.save")
    try:
        card = dict(json.loads((folder / CARD_FILE).read_text()))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{folder.name}/{CARD_FILE} is damaged ({error}); copy the model again") from error
    if missing := [name for name in REQUIRED if name not in card]:
        raise ModelError(
            f"{folder.name}/{CARD_FILE} lacks {', '.join(missing)}; save the model again, where it was made"
        )
    return card


def _read_head(head: Head, folder: Path) -> None:
    """Put the saved weights into a head. Raises ModelError where their shapes are others."""
    try:
        state = load_file(folder / HEAD_FILE)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder.name}/{HEAD_FILE} cannot be read ({error}); copy the model again") from error
    for name, weight in head.state_dict().items():
        found = list(state[name].shape) if name in state else "missing"
        if found != list(weight.shape):
            raise ModelError(f"{folder.name}/{HEAD_FILE}: {name} is {found}, the model needs {list(weight.shape)}")
    head.load_state_dict(state)
