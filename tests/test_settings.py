"""Settings and arms: names that stay what they were, and refusals that say which setting is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from rmlib.experiments.presets import PRESETS
from rmlib.losses import LOSSES
from rmlib.records.hashing import fingerprint
from rmlib.training.settings import LATER_FIELDS, TrainSettings

RESULTS = Path(__file__).resolve().parents[1] / "data" / "results"


def committed_settings() -> list[dict[str, Any]]:
    """The settings of every committed arm that was recorded before the later fields were added."""
    lines = [json.loads(line) for file in sorted(RESULTS.glob("*.jsonl")) for line in file.read_text().splitlines()]
    # A grid of heads records the settings that all its trials share.
    found = [line["asked"]["settings"] for line in lines if line["kind"] == "arm" and "grid" not in line["asked"]]
    return [settings for settings in found if not LATER_FIELDS & settings.keys()]


def test_settings_of_earlier_records_keep_their_content_and_their_hash() -> None:
    earlier = committed_settings()
    assert {settings["loss"] for settings in earlier} == set(LOSSES)
    for recorded in earlier:
        settings = TrainSettings.from_dict(recorded)
        assert json.loads(json.dumps(settings.to_dict())) == recorded
        assert settings.hash == fingerprint(recorded)  # the hash of an earlier version: that of all fields it had


def test_a_preset_at_the_defaults_of_later_fields_is_named_by_the_earlier_ones_alone() -> None:
    for preset in PRESETS.values():
        assert not any(LATER_FIELDS & stage.keys() for stage in preset.to_dict().values() if isinstance(stage, dict))
    changed = PRESETS["embedded"].change(strength_scale=(1.0, 3.0, 10.0))
    assert fingerprint(changed.to_dict()) != fingerprint(PRESETS["embedded"].to_dict())


LATER: list[dict[str, Any]] = [
    {"strength_scale": (1.0, 3.0, 10.0)},
    {"label_smoothing": 0.1},
    {"head_layers": 2},
    {"regression_weight": 0.5},
    {"soft_labels": True},
    {"benchmark_every_steps": 50},
    {"lora_alpha": 8},
    {"lora_dropout": 0.1},
    {"double_quantization": False},
    {"backbone_dtype": "bf16", "lora_rank": 4},
    {"optimizer": "paged_adamw_8bit"},
    {"sharding": "full"},
    {"activation_checkpointing": True},
    {"compile": "inductor"},
]


@pytest.mark.parametrize("change", LATER)
def test_each_later_field_names_a_run_and_comes_back_from_json(change: dict[str, Any]) -> None:
    settings = TrainSettings(**change)
    assert settings.hash != TrainSettings().hash
    assert TrainSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert settings.to_dict().items() >= change.items()


def test_every_later_field_is_tried_here() -> None:
    assert {name for change in LATER for name in change} >= LATER_FIELDS


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"strength_scale": (1.0, 2.0)}, "strength_scale must be three positive numbers"),
        ({"strength_scale": (0.0, 1.0, 2.0)}, "strength_scale must be three positive numbers"),
        ({"head_layers": 3}, "head_layers must be one of"),
        ({"label_smoothing": 0.5}, "label_smoothing must be from 0"),
        ({"label_smoothing": 0.1, "soft_labels": True}, "leave label_smoothing at 0"),
        ({"label_smoothing": 0.1, "loss": "regression"}, "label_smoothing belongs to a pair loss"),
        ({"soft_labels": True, "loss": "regression"}, "soft_labels belongs to a pair loss"),
        ({"regression_weight": 1.0, "loss": "regression"}, "regression_weight belongs to a pair loss"),
        ({"regression_weight": -1.0}, "regression_weight must not be negative"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TrainSettings(**change)
