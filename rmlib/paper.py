"""What the paper's recipe for 70 billion parameters takes: memory by part, operations, hours.

    python -m rmlib.paper                        with recomputation of activations and without
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from rmlib import planning
from rmlib.arms import ARMS, settings_for
from rmlib.planning import Hardware, plan
from rmlib.presets import PRESETS
from rmlib.settings import TrainSettings

# Arm, and nodes of eight GPUs, of the two stages of the authors' replication recipe.
PAPER_STAGES = (("regression", 8), ("bt_scaled_init", 4))
TOKEN_BUDGET = 8192  # of a pass: one pair of the longest texts allowed, for which memory is counted

def settings_of(arm: str) -> TrainSettings:
    """The recipe of a stage, in passes that fit."""
    return replace(settings_for(arm, PRESETS["paper"], seed=0), token_budget=TOKEN_BUDGET)


def table(*, utilisation: float = 0.4) -> pd.DataFrame:
    """The paper's 70B recipe: regression on 8 nodes of 8 GPUs, scaled Bradley-Terry on 4, with recomputation or not."""
    plans = {}
    for arm, nodes in PAPER_STAGES:
        for recompute in (True, False):
            settings = settings_of(arm)
            made = plan(settings, Hardware(nodes), utilisation=utilisation, recompute=recompute)
            plans[f"{ARMS[arm].title}; recomputation {'on' if recompute else 'off'}"] = made
    return planning.table(plans)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the paper's runs take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of the GPUs' peak (0.4)")
    options = parser.parse_args(arguments)
    print(table(utilisation=options.utilisation).to_string(float_format=lambda value: f"{value:,.2f}"))


if __name__ == "__main__":
    main()
