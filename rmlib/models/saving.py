"""A reward model on disk: head, backbone or adapter, tokenizer, and a card that says how they belong together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmlib.models import backbones
from rmlib.models.backbones import is_adapted
from rmlib.models.interface import ModelError
from rmlib.models.network import Head, RewardNetwork, draw_head, new_head
from rmlib.records.hashing import fingerprint

HEAD_FILE, CARD_FILE, ADAPTER_FOLDER = "head.safetensors", "reward_model.json", "adapter"
REQUIRED = ("backbone", "attributes", "identity", "body_identity", "adapted", "fresh_head", "head_layers")
Model = TypeVar("Model", bound=RewardNetwork)


def save(model: RewardNetwork, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """See `RewardModel.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict() if state is None else state
    save_file({name: weight.contiguous() for name, weight in _part(state, "head.").items()}, folder / HEAD_FILE)
    _save_backbone(model, folder, _part(state, "backbone."))
    model.tokenizer.save_pretrained(folder)
    card = {
        "format_version": 1,
        "backbone": model.name,
        "attributes": model.attributes,
        "identity": model.identity,
        "body_identity": model.body_identity,
        "adapted": is_adapted(model.backbone),
        "fresh_head": model.fresh_head,
        "head_layers": model.head_layers,
    }
    if model.base_identity != model.name:
        card["base_identity"] = model.base_identity
    config = getattr(model.config, "quantization_config", None)
    if config is not None:  # as keywords of transformers' BitsAndBytesConfig
        keywords = config if isinstance(config, dict) else config.to_diff_dict()
        card["quantization"] = {name: value for name, value in keywords.items() if not name.startswith("_")}
    (folder / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n")


def _save_backbone(model: RewardNetwork, folder: Path, state: dict[str, Tensor]) -> None:
    if not is_adapted(model.backbone):
        if model.body_identity != model.name:
            model.backbone.save_pretrained(folder, state_dict=state)
        return
    model.backbone.save_pretrained(folder / ADAPTER_FOLDER, state_dict=state)
    if model.base_identity != model.name:  # weights that no hub has, beneath the adapter
        names = {name.removeprefix("base_model.model."): name for name in state if ".lora_" not in name}
        base = {short.replace(".base_layer.", "."): state[name] for short, name in names.items()}
        model.backbone.get_base_model().save_pretrained(folder, state_dict=base)


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def load(
    cls: type[Model], folder: Path, head: str, attributes: Sequence[str] | None, head_layers: int | None, *,
    quantization: dict[str, Any] | Literal["as_saved"] | None, dtype: torch.dtype, seed: int,
) -> Model:  # fmt: skip
    """See `RewardModel.load`."""
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
    hidden = body.config.hidden_size
    if head == "keep":
        new = _saved_head(folder, hidden, len(wanted), n_layers)
        identity, fresh = card["identity"], card["fresh_head"]
    else:
        new = draw_head(hidden, len(wanted), seed, n_layers)
        identity, fresh = fingerprint("redraw", card["identity"], wanted, seed, n_layers), True
    return cls(
        body, new, tokenizer, name=card["backbone"], attributes=wanted, fresh_head=fresh,
        identity=identity, body_identity=card["body_identity"], base_identity=card.get("base_identity"),
    )  # fmt: skip


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
    card = json.loads((folder / CARD_FILE).read_text())
    if missing := [name for name in REQUIRED if name not in card]:
        raise ModelError(
            f"{folder.name}/{CARD_FILE} lacks {', '.join(missing)}; save the model again, where it was made"
        )
    return card


def _saved_head(folder: Path, hidden_size: int, n_attributes: int, n_layers: int) -> Head:
    state = load_file(folder / HEAD_FILE)
    with torch.random.fork_rng():  # what is drawn here is overwritten
        head = new_head(hidden_size, n_attributes, n_layers)
    for name, weight in head.state_dict().items():
        found = list(state[name].shape) if name in state else "missing"
        if found != list(weight.shape):
            raise ModelError(f"{folder.name}/{HEAD_FILE}: {name} is {found}, the model needs {list(weight.shape)}")
    head.load_state_dict(state)
    return head
