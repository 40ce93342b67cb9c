"""The paper's recipe for 70 billion parameters: what it takes, and both of its stages down to the launch line.

python -m rmlib.experiments.paper                              memory by part, operations, hours
python -m rmlib.experiments.paper prepare --folder runs/paper  beside it a folder for each stage, ready to launch
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from rmlib.experiments.arms import ARMS, settings_for
from rmlib.experiments.planning import Hardware, plan
from rmlib.experiments.presets import PRESETS
from rmlib.training.settings import TrainSettings

# Arm, and nodes of eight GPUs, of the two stages of the authors' replication recipe.
PAPER_STAGES = (("regression", 8), ("bt_scaled_init", 4))
GPUS_PER_NODE = 8
TOKEN_BUDGET = 8192  # of a pass: one pair of the longest texts allowed, for which memory is counted
LAUNCH = """#!/usr/bin/env bash
# {title}: {nodes} nodes of {gpus} GPUs, {steps} steps. Start it in the repository's root; again, and it goes on.
exec sbatch --nodes={nodes} launch/slurm.sh {job}
"""


def settings_of(arm: str) -> TrainSettings:
    """The recipe of a stage, in passes that fit; sharded, with a checkpoint every 25 steps."""
    recipe = settings_for(arm, PRESETS["paper"], seed=0)
    return replace(
        recipe, token_budget=TOKEN_BUDGET, sharding="full", activation_checkpointing=True, checkpoint_every_steps=25
    )


def table(*, utilisation: float = 0.4) -> pd.DataFrame:
    """The paper's 70B recipe: regression on 8 nodes of 8 GPUs, scaled Bradley-Terry on 4, with recomputation or not.

    One column for each; parts of memory in GB of one GPU.
    """
    columns = {}
    for (arm, nodes), recompute in product(PAPER_STAGES, (True, False)):
        settings = replace(settings_of(arm), activation_checkpointing=recompute)
        made, on_or_off = plan(settings, Hardware(nodes), utilisation=utilisation), "on" if recompute else "off"
        machines = f"{made.hardware.nodes} x {made.hardware.gpus_per_node} {made.hardware.name}"
        column: dict[str, Any] = {"GPUs": machines, "parameters (B)": made.weights.total / 1e9, "steps": made.n_steps}
        column |= {"tokens (M)": made.tokens / 1e6, "recomputation": on_or_off}
        column |= {f"{part} (GB)": value for part, value in made.memory_gb.items()}
        column |= {"together (GB)": made.total_gb, "fits": "yes" if made.fits else "no"}
        column |= {"petaflop": made.petaflop, f"hours at {made.utilisation:.0%} of peak": made.hours}
        columns[f"{ARMS[arm].title}; recomputation {on_or_off}"] = column
    return pd.DataFrame(columns)


def prepare(folder: Path, source: str = "hub") -> list[Path]:
    """Write both stages of the paper's recipe to a folder: run.json and launch.sh each; returns what was written.

    The second stage starts from the model of the first. Paths are relative to the repository's root.
    """
    written, before = [], None
    for number, (arm, nodes) in enumerate(PAPER_STAGES, start=1):
        settings, place = settings_of(arm), folder / f"{number}_{arm}"
        place.mkdir(parents=True, exist_ok=True)
        job = {"source": source, "processes": nodes * GPUS_PER_NODE, "settings": settings.to_dict()}
        job["folder"] = str(place / "run")
        if before is not None:
            job["initialise_from"] = str(before / "run" / "model")
        (place / "run.json").write_text(json.dumps(job, indent=1) + "\n")
        names = {"title": ARMS[arm].title, "nodes": nodes, "gpus": GPUS_PER_NODE, "steps": settings.max_steps}
        (place / "launch.sh").write_text(LAUNCH.format(**names, job=place / "run.json"))
        written += [place / "run.json", place / "launch.sh"]
        before = place
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what the paper's runs take; with `prepare`, write their folders too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "prepare"], nargs="?", default="table")
    parser.add_argument("--folder", type=Path, default=Path("runs/paper"), help="of the two stages (runs/paper)")
    parser.add_argument("--source", default="hub", help="of the pairs: hub or a folder (hub)")
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of the GPUs' peak (0.4)")
    options = parser.parse_args(arguments)
    print(table(utilisation=options.utilisation).to_string(float_format=lambda value: f"{value:,.2f}"))
    if options.what == "prepare":
        print(*prepare(options.folder, options.source), sep="\n")


if __name__ == "__main__":
    main()
