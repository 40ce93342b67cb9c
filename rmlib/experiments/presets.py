"""Settings that carry the same arms across scales; change a field with `preset.change(...)`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from rmlib.training.settings import TrainSettings

STAGES = ("regression", "preference", "second")


@dataclass(frozen=True)
class Preset:
    """Settings of the three kinds of training: regression, Bradley-Terry from scratch, and after regression.

    `learning_rates`: of arms for which one was chosen (`experiments.tuned`), in place of their kind's; an arm without
    one takes its parent's where both are of one kind.
    """

    name: str
    regression: TrainSettings
    preference: TrainSettings
    second: TrainSettings
    learning_rates: dict[str, float] = field(default_factory=dict)

    @property
    def backbone(self) -> str:
        return self.regression.backbone

    @property
    def frozen(self) -> bool:
        """Whether only heads are trained, on features computed once."""
        return self.regression.trainable == "head"

    def stage(self, loss: str, *, initialised: bool) -> TrainSettings:
        """The settings for a loss, from scratch or initialised from the regression model."""
        if loss == "regression":
            return self.regression
        return self.second if initialised else self.preference

    def to_dict(self) -> dict[str, Any]:
        """Name and stages as the name of a comparison is made of them (`TrainSettings.to_dict`)."""
        return {"name": self.name} | {stage: getattr(self, stage).to_dict() for stage in STAGES}

    def change(self, **settings: Any) -> Preset:
        """The same preset with some settings changed in all three kinds; raises TypeError for an unknown setting."""
        stages: dict[str, Any] = {name: replace(getattr(self, name), **settings) for name in STAGES}
        rates = {} if "learning_rate" in settings else self.learning_rates
        return replace(self, **stages, learning_rates=rates)


def _preset(name: str, common: dict[str, Any], **stages: dict[str, Any]) -> Preset:
    made: dict[str, Any] = {stage: TrainSettings(**(common | stages.get(stage, {}))) for stage in STAGES}
    return Preset(name, **made)


# fmt: off
_PAPER: dict[str, Any] = {
    "backbone": "meta-llama/Llama-3.1-70B-Instruct", "precision": "bf16", "max_length": 4096,
    "pairs_per_step": 64,  # 128 responses
    "schedule": "constant", "warmup_steps": 10, "weight_decay": 0.1, "betas": (0.9, 0.98), "clip_norm": 1.0,
    "evaluate_every_steps": 10, "checkpoint_every_steps": 10,
}
_PRESETS = (
    # Two CPU cores, half a minute a run. The second stage has half the learning rate, as in the paper.
    _preset(
        "embedded", {"backbone": "embedded", "pairs_per_step": 32, "learning_rate": 1e-3, "epochs": 3},
        second={"learning_rate": 5e-4, "epochs": 1},
    ),
    # A small pretrained encoder whose features are computed once; only heads are trained.
    _preset(
        "frozen", {"backbone": "minilm", "trainable": "head", "pairs_per_step": 64, "learning_rate": 1e-3,
                   "epochs": 40},
        second={"learning_rate": 5e-4, "epochs": 20},
    ),
    # The same encoder, every weight trained; without instructions for bf16 a CPU emulates it, at several times the
    # cost.
    _preset(
        "finetuned", {"backbone": "minilm", "precision": "fp32", "pairs_per_step": 16, "token_budget": 4096,
                      "learning_rate": 3e-5, "epochs": 1},
        second={"learning_rate": 1.5e-5},
    ),
    # One GPU: a decoder of 0.5 to 8 billion parameters with adapters.
    _preset(
        "single-gpu", _PAPER | {"backbone": "Qwen/Qwen2.5-0.5B-Instruct", "lora_rank": 32, "learning_rate": 1e-4,
                                "overlong": "leave_out", "checkpoint_every_steps": 50},
        regression={"epochs": 2}, second={"learning_rate": 5e-5},
    ),
    # The authors' replication recipe. That of Bradley-Terry from scratch is not published: it takes the second stage's.
    _preset(
        "paper", _PAPER,
        regression={"learning_rate": 2e-6, "epochs": 2, "max_steps": 317},
        preference={"learning_rate": 1e-6, "max_steps": 105},
        second={"learning_rate": 1e-6, "max_steps": 105, "shuffle": False},
    ),
)
# fmt: on
PRESETS = {preset.name: preset for preset in _PRESETS}


def preset_for(backbone: str) -> Preset:
    """The preset that suits a backbone: `embedded`; `frozen` for minilm; `single-gpu` for any other."""
    named = {"embedded": "embedded", "minilm": "frozen"}
    return PRESETS[named[backbone]] if backbone in named else PRESETS["single-gpu"].change(backbone=backbone)
