"""Settings: every field names a run, and what is wrong is refused by name."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rmlib import losses
from rmlib.models import network
from rmlib.training import settings
from rmlib.training.settings import LOSSES, PAIR_LOSSES, TrainSettings

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"


def committed_settings() -> list[dict[str, Any]]:
    """The settings of every committed arm; a grid of heads records the settings that all its trials share."""
    lines = [json.loads(line) for file in sorted(RESULTS.glob("*.jsonl")) for line in file.read_text().splitlines()]
    return [line["asked"]["settings"] for line in lines if line["kind"] == "arm" and "grid" not in line["asked"]]


def test_settings_of_committed_records_are_read_as_they_were_asked() -> None:
    recorded = committed_settings()
    assert {settings["loss"] for settings in recorded} == set(losses.LOSSES)
    for asked in recorded:  # those of before December 2026 lack some fields that were at their defaults
        assert json.loads(json.dumps(TrainSettings.from_dict(asked).to_dict())).items() >= asked.items()


def test_the_names_that_settings_know_are_those_of_losses_and_heads() -> None:
    assert LOSSES == losses.LOSSES and tuple(losses.PAIR_LOSSES) == PAIR_LOSSES
    assert settings.HEAD_LAYERS == network.HEAD_LAYERS


CHANGES: list[dict[str, Any]] = [
    {"backbone": "minilm"}, {"loss": "regression"}, {"attributes": ("coherence",)}, {"trainable": "head"},
    {"lora_rank": 4, "quantization": "nf4"}, {"epochs": 2.0}, {"max_steps": 9}, {"pairs_per_step": 8},
    {"token_budget": 512}, {"learning_rate": 1e-5}, {"schedule": "cosine"}, {"warmup_steps": 0}, {"weight_decay": 0.0},
    {"betas": (0.9, 0.999)}, {"clip_norm": 2.0}, {"precision": "bf16"}, {"shuffle": False}, {"seed": 1},
    {"max_length": 99}, {"overlong": "leave_out"}, {"evaluate_every_steps": 5}, {"checkpoint_every_steps": 5},
    {"strength_scale": (1.0, 3.0, 10.0)}, {"label_smoothing": 0.1}, {"head_layers": 2}, {"regression_weight": 0.5},
    {"soft_labels": True}, {"benchmark_every_steps": 50}, {"lora_alpha": 8}, {"lora_dropout": 0.1},
    {"double_quantization": False}, {"backbone_dtype": "bf16", "lora_rank": 4}, {"optimizer": "paged_adamw_8bit"},
    {"sharding": "full"}, {"activation_checkpointing": True}, {"compile": "inductor"},
]  # fmt: skip


def test_every_field_names_a_run_and_comes_back_from_json() -> None:
    for change in CHANGES:
        changed = TrainSettings(**change)
        assert changed.to_dict() != TrainSettings().to_dict()
        assert TrainSettings.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed
        assert changed.to_dict().items() >= change.items()
    assert {name for change in CHANGES for name in change} == set(TrainSettings().to_dict())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"strength_scale": (1.0, 2.0)}, "strength_scale must be three positive numbers"),
        ({"strength_scale": (0.0, 1.0, 2.0)}, "strength_scale must be three positive numbers"),
        ({"head_layers": 3}, "head_layers=3 is unknown; known: 1, 2"),
        ({"label_smoothing": 0.5}, "label_smoothing must be from 0"),
        ({"label_smoothing": 0.1, "soft_labels": True}, "leave label_smoothing at 0"),
        ({"label_smoothing": 0.1, "loss": "regression"}, "label_smoothing belongs to a pair loss"),
        ({"soft_labels": True, "loss": "regression"}, "soft_labels belongs to a pair loss"),
        ({"regression_weight": 1.0, "loss": "regression"}, "regression_weight belongs to a pair loss"),
        ({"regression_weight": -1.0}, "regression_weight must not be negative"),
        ({"learning_rate": math.inf}, "learning_rate must be finite"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TrainSettings(**change)
