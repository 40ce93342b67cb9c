"""The arms of the comparison: each is its parent plus one change."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from rmlib.experiments.presets import Preset
from rmlib.pairs.schema import ATTRIBUTES
from rmlib.training.settings import TrainSettings

Job = tuple[str, int]  # arm and seed
Look = tuple[str, str, str]  # colour, marker and kind of line, as matplotlib names them

# Colours say which loss, and colour-blind readers tell them apart (seaborn's palette "colorblind"). Marker and kind of
# line are an arm's own, so that arms differ in grey too.
ORANGE, BLUE, GREEN, RED, PURPLE, SKY = "#de8f05", "#0173b2", "#029e73", "#d55e00", "#cc78bc", "#56b4e9"
GREY = "#6f6f6f"


@dataclass(frozen=True)
class Arm:
    """One line of the comparison: its parent plus one change (settings, or where the weights come from).

    `look`: colour, marker and kind of line of the arm in every figure.
    """

    name: str
    title: str
    parent: str | None
    change: dict[str, Any] = field(default_factory=dict)
    look: Look = (GREY, "o", "-")


_ARMS = (
    Arm("regression", "Regression, helpfulness only", None, {"loss": "regression"}, (ORANGE, "s", "-")),
    Arm("regression_all", "Regression, all attributes", "regression", {"attributes": ATTRIBUTES}, (ORANGE, "p", "--")),
    Arm("bt", "Regular BT", None, {"loss": "bradley_terry"}, (BLUE, "o", "-")),
    Arm("bt_margin", "Margin BT", "bt", {"loss": "margin_bradley_terry"}, (GREEN, "^", "-")),
    Arm("bt_scaled", "Scaled BT", "bt", {"loss": "scaled_bradley_terry"}, (RED, "D", "-")),
    Arm("bt_init", "Regular BT, from regression", "bt", {"initialise_from": "regression"}, (BLUE, "P", "--")),
    Arm("bt_margin_init", "Margin BT, from regression", "bt_margin", {"initialise_from": "regression"},
        (GREEN, "v", "--")),
    Arm("bt_scaled_init", "Scaled BT, from regression", "bt_scaled", {"initialise_from": "regression"},
        (RED, "*", "--")),
    Arm("bt_scaled_init_expo", "Scaled BT, from regression, ExPO", "bt_scaled_init", {"extrapolate": "regression"},
        (RED, "X", ":")),
    # Not in the paper.
    Arm("regression_all_fitted", "Regression, all attributes, fitted weights", "regression_all",
        {"attribute_weights": "fitted"}, (ORANGE, "h", ":")),
    Arm("bt_scaled_regression", "Scaled BT and regression at once", "bt_scaled", {"regression_weight": 1.0},
        (PURPLE, "<", "-.")),
    Arm("bt_scaled_affine", "Scaled BT, on the rating scale", "bt_scaled", {"affine": "selection"}, (PURPLE, "d", ":")),
    Arm("bt_scaled_1_3_10", "Scaled BT, strengths 1-3-10", "bt_scaled", {"strength_scale": (1.0, 3.0, 10.0)},
        (PURPLE, ">", "-")),
    Arm("bt_scaled_two_layers", "Scaled BT, head of two layers", "bt_scaled", {"head_layers": 2}, (PURPLE, "8", "--")),
    Arm("bt_smoothed", "Regular BT, labels smoothed by 0.1", "bt", {"label_smoothing": 0.1}, (SKY, "<", "--")),
    Arm("bt_soft", "Regular BT, votes as soft labels", "bt", {"soft_labels": True}, (SKY, ">", "-.")),
    Arm("plackett_luce", "Plackett-Luce, whole rankings", "bt", {"loss": "plackett_luce"}, (SKY, "H", "-")),
    # Controls with a known answer: accuracy 1/2. A random head has it only on average over seeds, since its negative
    # is as likely: each seed orders the pairs by some arbitrary direction.
    Arm("random_head", "Control: random head, not trained", "bt", {"untrained": True}, (GREY, "x", ":")),
    Arm("bt_shuffled", "Control: regular BT, labels shuffled", "bt", {"shuffle_labels": True}, (GREY, "+", "--")),
)  # fmt: skip
ARMS = {arm.name: arm for arm in _ARMS}
# Rows of the paper's table of reward models, in its order.
PAPER_ARMS = tuple(ARMS)[: 1 + tuple(ARMS).index("bt_scaled_init_expo")]
CONTROL_ARMS = ("random_head", "bt_shuffled")
FINETUNED = "_finetuned"  # ends the name of an arm that was fine-tuned beside frozen ones
# Where each name stands in a table: arms in the paper's order, then those fine-tuned beside frozen ones.
POSITIONS = {name: index for index, name in enumerate([*ARMS, *(name + FINETUNED for name in ARMS)])}


def changes(arm: str) -> dict[str, Any]:
    """All changes along an arm's line of parents, the arm's own last; raises ValueError for an unknown arm."""
    if arm not in ARMS:
        raise ValueError(f"unknown arm {arm!r}; known: {', '.join(ARMS)}")
    parent = ARMS[arm].parent
    return (changes(parent) if parent else {}) | ARMS[arm].change


def is_derived(arm: str) -> bool:
    """Whether an arm is made of its parents, or drawn, without a step of training (`rmlib.experiments.derived`)."""
    return bool({"extrapolate", "attribute_weights", "affine", "untrained"} & changes(arm).keys())


def waits_for(arm: str) -> list[str]:
    """The arms whose models this one is made from; ValueError for an unknown arm."""
    change = changes(arm)
    if "extrapolate" in change:
        return [str(ARMS[arm].parent), change["extrapolate"]]
    if "untrained" in change:
        return []
    if is_derived(arm):
        return [str(ARMS[arm].parent)]
    return [change["initialise_from"]] if "initialise_from" in change else []


def line_of(*arms: str) -> list[str]:
    """The arms, and those that they are made from, each once and before those that it is made from."""
    return list(dict.fromkeys(name for arm in arms for name in (arm, *line_of(*waits_for(arm)))))


def settings_for(arm: str, preset: Preset, seed: int) -> TrainSettings:
    """Training settings of an arm: the preset's for its stage, with what the arm changes, and the seed."""
    change = changes(arm)
    base = preset.stage(change["loss"], initialised="initialise_from" in change)
    base = replace(base, learning_rate=_chosen_rate(arm, preset) or base.learning_rate)
    own = {item.name: change[item.name] for item in fields(TrainSettings) if item.name in change}
    return replace(base, **({"attributes": ("helpfulness",)} | own), seed=seed)


def _chosen_rate(arm: str, preset: Preset) -> float | None:
    """The rate chosen for an arm, else for its parent where that is trained in the same stage: one change, not two."""
    parent = ARMS[arm].parent
    if arm in preset.learning_rates or parent is None or _stage(arm) != _stage(parent):
        return preset.learning_rates.get(arm)
    return _chosen_rate(parent, preset)


def _stage(arm: str) -> tuple[bool, bool]:
    change = changes(arm)
    return change["loss"] == "regression", "initialise_from" in change


def title(name: str) -> str:
    """What a figure calls an arm, a fine-tuned arm beside frozen ones (`bt_finetuned`), or a ruler (its own name)."""
    arm = name.removesuffix(FINETUNED)
    if arm not in ARMS:
        return name
    return ARMS[arm].title + (", fine-tuned" if name != arm else "")
