"""A run file: what `python -m rmlib.training run.json` trains, in one process or in each of several."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rmlib import sources
from rmlib.models import ModelError, RewardModel, adapters
from rmlib.models.backbones import is_adapted, without_weights
from rmlib.pairs import carve_selection
from rmlib.training import watching
from rmlib.training.loop import train
from rmlib.training.parallel import Processes
from rmlib.training.runs import Run, TrainingError, initial, lora_of
from rmlib.training.settings import TrainSettings

KEYS = {"source", "settings", "initialise_from", "adapter", "folder", "benchmarks", "processes"}
ADAPTER_POLICIES = ("keep", "merge")


def run_job(job: dict[str, Any]) -> Run:
    """Train what a run file says; each of several processes calls this with the same job.

    Keys: `source`, `settings`, and where wanted `folder`, `benchmarks` (see `watching.load`), `processes` (how many
    there have to be), `initialise_from` (a folder) and, where that model has an adapter, `adapter` ("keep" or "merge").
    `accelerate.notebook_launcher` refuses a notebook that has imported this library (peft imports bitsandbytes): give
    it a function that imports it itself.
    """
    if unknown := job.keys() - KEYS:
        raise TrainingError(f"unknown keys {sorted(unknown)} in the run file; known: {', '.join(sorted(KEYS))}")
    settings = TrainSettings.from_dict(job["settings"])
    processes = Processes.join(job.get("processes"))
    with processes.main_first():  # what one has read from the source the others find in the cache
        table = sources.load(job["source"])
    folder = job.get("initialise_from")
    with without_weights(settings.sharding == "full" and not processes.is_main):
        start = continue_from(folder, settings, job.get("adapter")) if folder else initial(settings)
    pairs, selection = carve_selection(table.select(np.flatnonzero(np.array(table["split"]) == "train")), 0.1, 0)
    watched = watching.load(job.get("benchmarks", {}))
    return train(start, pairs, settings, selection=selection, benchmarks=watched, folder=job.get("folder"))


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
    lora = lora_of(settings)
    return model if lora is None else adapters.add(model, lora, seed=settings.seed)


def run_file(file: Path) -> None:
    """Train what the file says; the first process prints the summary."""
    processes = Processes.join()
    logging.basicConfig(level=logging.INFO if processes.is_main else logging.ERROR, format="%(message)s")
    run = run_job(json.loads(file.read_text()))
    if processes.is_main:
        print(json.dumps(run.summary, indent=1))
    processes.leave()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m rmlib.training run.json, or torchrun … -m rmlib.training run.json")
    run_file(Path(sys.argv[1]))
