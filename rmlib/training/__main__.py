"""A run file: what `python -m rmlib.training run.json` trains, in one process or in each of several."""

from __future__ import annotations

import json
import logging
import sys
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rmlib import benchmarks, sources
from rmlib.models import ModelError, RewardModel, adapters
from rmlib.models.backbones import is_adapted, without_weights
from rmlib.pairs import carve_selection
from rmlib.records.files import parse_json
from rmlib.training import watching
from rmlib.training.loop import train
from rmlib.training.parallel import Processes
from rmlib.training.runs import Run, TrainingError, initial, lora_of
from rmlib.training.settings import TrainSettings, from_json, outside, refuse

ADAPTER_POLICIES = ("keep", "merge")


@dataclass(frozen=True)
class Job:
    """What a run file holds; `from_json` makes one.

    `source_options` are those of `sources.load`, `benchmarks` what `watching.load` takes, `processes` how many there
    have to be, `initialise_from` the folder of a saved model; where that has an adapter, `adapter` is "keep" or
    "merge".
    Raises ValueError for what can be seen to fail before anything is read.
    """

    source: str
    settings: TrainSettings
    source_options: dict[str, Any] = field(default_factory=dict)
    folder: str | None = None
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: int | None = None
    initialise_from: str | None = None
    adapter: str | None = None

    def __post_init__(self) -> None:
        refuse([*self._mistakes()])

    def _mistakes(self) -> Iterable[str]:
        for name in ("source", "folder", "initialise_from"):
            if getattr(self, name) == "":
                yield f"{name} is an empty text: name one, or leave it out"
        if self.source not in sources.loading.NAMES and not Path(self.source).expanduser().exists():
            yield f"source: {self.source} is neither a file or folder nor one of {', '.join(sources.loading.NAMES)}"
        if self.initialise_from is not None and not Path(self.initialise_from).is_dir():
            yield f"initialise_from: there is no folder {self.initialise_from}"
        if self.folder is not None and Path(self.folder).is_file():
            yield f"folder: {self.folder} is a file"
        if self.adapter is not None and self.adapter not in ADAPTER_POLICIES:
            yield f"adapter={self.adapter!r} is unknown; known: {', '.join(ADAPTER_POLICIES)}"
        for name in self.benchmarks.keys() - benchmarks.BENCHMARKS.keys():
            yield f"benchmarks: {name!r} is unknown; known: {', '.join(benchmarks.BENCHMARKS)}"
        yield from outside(self, ["processes"], "must be positive", lambda value: value > 0)


def run_job(asked: Mapping[str, Any]) -> Run:
    """Train what a run file says, a `Job` as JSON; each of several processes calls this with the same one.

    `accelerate.notebook_launcher` refuses a notebook that has imported this library (peft imports bitsandbytes): give
    it a function that imports it itself. Raises ValueError with every mistake of the file.
    """
    job = from_json(Job, asked)
    processes = Processes.join(job.processes)
    with processes.main_first():  # what one has read from the source the others find in the cache
        table = sources.load(job.source, **job.source_options)
    with without_weights(job.settings.sharding == "full" and not processes.is_main):
        begun = job.initialise_from
        start = continue_from(begun, job.settings, job.adapter) if begun else initial(job.settings)
    train_rows = np.flatnonzero(np.array(table["split"]) == "train")
    if len(train_rows) < 2:
        raise ValueError(f"{len(train_rows)} of {len(table)} pairs are training pairs: the others are held out")
    pairs, selection = carve_selection(table.select(train_rows), 0.1, 0)
    watched = watching.load(job.benchmarks)
    return train(start, pairs, job.settings, selection=selection, benchmarks=watched, folder=job.folder)


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
    """Train what the file says; the first process prints the summary. Raises ValueError for a file that is no JSON."""
    try:
        asked = parse_json(file.read_bytes().removeprefix(BOM_UTF8))
    except ValueError as error:  # of JSON, or of the encoding
        raise ValueError(f"{file} is not JSON: {error}") from error
    processes = Processes.join()
    logging.basicConfig(level=logging.INFO if processes.is_main else logging.ERROR, format="%(message)s")
    run = run_job(asked)
    if processes.is_main:
        print(json.dumps(run.summary, indent=1))
    processes.leave()


def main(arguments: Sequence[str]) -> int:
    """Run the file; 1, with the reason in one line, where it cannot be run."""
    if len(arguments) != 1:
        print("usage: python -m rmlib.training run.json, or torchrun … -m rmlib.training run.json", file=sys.stderr)
        return 2
    try:
        run_file(Path(arguments[0]))
    except (ValueError, OSError, TrainingError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
