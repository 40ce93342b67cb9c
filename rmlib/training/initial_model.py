"""The model that a run starts from: what its settings describe, or a saved one, with its adapter or on top of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rmlib.models import ModelError, RewardModel, adapters
from rmlib.models.backbones import is_adapted
from rmlib.training.settings import TrainSettings

ADAPTER_POLICIES = ("keep", "merge")


@dataclass(frozen=True)
class Start:
    """An initial model that is made only where it is needed: a finished run is found by its identity alone."""

    identity: str
    make: Callable[[], RewardModel]


def create_model(settings: TrainSettings) -> RewardModel:
    """The initial model that the settings describe."""
    return RewardModel.create(settings.backbone, settings.attributes, **_described(settings))


def initial(settings: TrainSettings) -> Start:
    """The same, made only where a run is not finished."""
    identity = RewardModel.identity_of_new(settings.backbone, settings.attributes, **_described(settings))
    return Start(identity, partial(create_model, settings))


def continue_from(folder: str | Path, settings: TrainSettings, adapter: str | None = None) -> RewardModel:
    """A saved model to train further.

    Where it has an adapter, `adapter` says what becomes of it: "keep" trains it further, "merge" adds it to the weights
    and, with a `lora_rank`, starts a new one on top. Raises ModelError where that is not said, or not to be said.
    """
    model = RewardModel.load(folder)
    if adapter is None and is_adapted(model.backbone):
        raise ModelError(
            f"{Path(folder).name} has an adapter: say 'keep' to train it further, or 'merge' to add it to the weights"
        )
    if adapter is not None and (adapter not in ADAPTER_POLICIES or not is_adapted(model.backbone)):
        raise ModelError(f"adapter={adapter!r}: known are {ADAPTER_POLICIES}, for a model that has one")
    if adapter == "keep":
        return model
    model = adapters.merge(model) if adapter == "merge" else model
    lora = _lora(settings)
    return model if lora is None else adapters.add(model, lora, seed=settings.seed)


def _lora(settings: TrainSettings) -> dict[str, Any] | None:
    if not settings.lora_rank:
        return None
    dropout = {"lora_dropout": settings.lora_dropout} if settings.lora_dropout else {}
    return {"r": settings.lora_rank, "lora_alpha": settings.lora_alpha or 2 * settings.lora_rank} | dropout


def _described(settings: TrainSettings) -> dict[str, Any]:
    nf4: dict[str, Any] = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": settings.double_quantization,
    }
    if settings.precision == "bf16":  # else the 4-bit weights would be multiplied in fp32
        nf4["bnb_4bit_compute_dtype"] = "bfloat16"
    return {
        "head_layers": settings.head_layers,
        "lora": _lora(settings),
        "quantization": nf4 if settings.quantization == "nf4" else None,
        "seed": settings.seed,
        "dtype": torch.bfloat16 if settings.backbone_dtype == "bf16" else torch.float32,
    }
