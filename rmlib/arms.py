"""The arms of the comparison: each is its parent plus one change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from rmlib.presets import Preset
from rmlib.schema import ATTRIBUTES
from rmlib.settings import TrainSettings


@dataclass(frozen=True)
class Arm:
    """One line of the comparison: its parent plus one change (settings, or where the weights come from)."""

    name: str
    title: str
    parent: str | None
    change: dict[str, Any] = field(default_factory=dict)


def _arms(*arms: Arm) -> dict[str, Arm]:
    return {arm.name: arm for arm in arms}


ARMS = _arms(
    Arm("regression", "Regression, helpfulness only", None, {"loss": "regression"}),
    Arm("regression_all", "Regression, all attributes", "regression", {"attributes": ATTRIBUTES}),
    Arm("bt", "Regular BT", None, {"loss": "bradley_terry"}),
    Arm("bt_margin", "Margin BT", "bt", {"loss": "margin_bradley_terry"}),
    Arm("bt_scaled", "Scaled BT", "bt", {"loss": "scaled_bradley_terry"}),
    Arm("bt_init", "Regular BT, from regression", "bt", {"initialise_from": "regression"}),
    Arm("bt_margin_init", "Margin BT, from regression", "bt_margin", {"initialise_from": "regression"}),
    Arm("bt_scaled_init", "Scaled BT, from regression", "bt_scaled", {"initialise_from": "regression"}),
    Arm("bt_scaled_init_expo", "Scaled BT, from regression, ExPO", "bt_scaled_init", {"extrapolate": "regression"}),
    Arm("bt_shuffled", "Control: regular BT, labels shuffled", "bt", {"shuffle_labels": True}),
)
# Rows of the paper's table of reward models, in its order; the control is ours.
PAPER_ARMS = tuple(name for name in ARMS if name != "bt_shuffled")
FINETUNED = "_finetuned"  # ends the name of an arm that was fine-tuned beside frozen ones
# Where each name stands in a table: arms in the paper's order, then those fine-tuned beside frozen ones.
POSITIONS = {name: index for index, name in enumerate([*ARMS, *(name + FINETUNED for name in ARMS)])}


def changes(arm: str) -> dict[str, Any]:
    """All changes along an arm's line of parents, the arm's own last; raises ValueError for an unknown arm."""
    if arm not in ARMS:
        raise ValueError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
    parent = ARMS[arm].parent
    return (changes(parent) if parent else {}) | ARMS[arm].change


def settings_for(arm: str, preset: Preset, seed: int) -> TrainSettings:
    """Training settings of an arm: the preset's for its stage, with the arm's loss and attributes, and the seed."""
    change = changes(arm)
    base = preset.stage(change["loss"], initialised="initialise_from" in change)
    base = replace(base, learning_rate=preset.learning_rates.get(arm, base.learning_rate))
    return replace(base, loss=change["loss"], attributes=change.get("attributes", ("helpfulness",)), seed=seed)


def title(name: str) -> str:
    """What a figure calls an arm, a fine-tuned arm beside frozen ones (`bt_finetuned`), or a ruler (its own name)."""
    arm = name.removesuffix(FINETUNED)
    if arm not in ARMS:
        return name
    return ARMS[arm].title + (", fine-tuned" if name != arm else "")
