"""The initial model of a run: what the settings describe, made at once or only where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rmlib.models import RewardModel, identity_of_new
from rmlib.settings import TrainSettings


@dataclass(frozen=True)
class Start:
    """An initial model that is made only where it is needed: a finished run is found by its identity alone."""

    identity: str
    make: Callable[[], RewardModel]


def create_model(settings: TrainSettings) -> RewardModel:
    """The initial model that the settings describe."""
    return RewardModel.create(settings.backbone, settings.attributes, **_adapted(settings))


def initial(settings: TrainSettings) -> Start:
    """The same, made only where a run is not finished."""
    identity = identity_of_new(settings.backbone, settings.attributes, **_adapted(settings))
    return Start(identity, partial(create_model, settings))


def _adapted(settings: TrainSettings) -> dict[str, Any]:
    lora = {"r": settings.lora_rank, "lora_alpha": 2 * settings.lora_rank} if settings.lora_rank else None
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    quantization = nf4 if settings.quantization == "nf4" else None
    return {
        "head_layers": settings.head_layers,
        "lora": lora,
        "quantization": quantization,
        "seed": settings.seed,
    }
