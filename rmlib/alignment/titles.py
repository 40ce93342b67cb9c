"""What policies and rewards are called: names that need no model, so that tables and figures need none."""

from __future__ import annotations

from rmlib.experiments.arms import ARMS, GREEN, PURPLE, Look, title

ENSEMBLE, ENSEMBLE_OF = "ensemble", "bt_scaled_init"
EXPO = "expo"  # not the arm whose factor is chosen: where that is 1, it is its parent
EXPO_FACTOR = 1.52  # `combining.PAPER_FACTOR`, written down again: it stands beside what imports torch
ANNOTATORS = "annotators"  # in the place of a reward arm: DPO on the pairs as people ordered them
BEST_OF_N = "best_of_n"
# How rewards that are no arms look in figures: colour, marker, kind of line.
LOOKS: dict[str, Look] = {
    EXPO: ARMS["bt_scaled_init_expo"].look, ENSEMBLE: (PURPLE, "h", "-."), ANNOTATORS: (GREEN, "^", "-"),
}  # fmt: skip
METHOD_TITLES = {
    BEST_OF_N: "Best of n", "reinforce": "REINFORCE", "ppo": "PPO",
    "dpo": "DPO", "dpo_margin": "Margin DPO", "dpo_scaled": "Scaled DPO",
}  # fmt: skip


def reward_title(arm: str) -> str:
    """What a figure calls a reward."""
    others = {
        EXPO: f"ExPO from regression, factor {EXPO_FACTOR}", ENSEMBLE: f"Ensemble of {title(ENSEMBLE_OF)}",
        ANNOTATORS: "the annotators' pairs",
    }  # fmt: skip
    return others.get(arm) or title(arm)
