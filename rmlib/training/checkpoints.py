"""Checkpoints of a run: whole or not there, with a checksum of each file; of a damaged one the one before is taken."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rmlib.records.files import sha256, sync, write_json, written_whole
from rmlib.training.parallel import ALONE, Processes
from rmlib.training.runs import LOG_FILE, writing

logger = logging.getLogger(__name__)

KEPT = 2
UNFINISHED = ".checkpoint-*"  # the temporary names of `records.files.written_whole`
WEIGHTS_FILE, STATE_FILE, SHARDS = "weights.safetensors", "state.pt", "shards"
PROGRESS_FILE, MANIFEST_FILE = "progress.json", "manifest.json"


@dataclass(frozen=True)
class State:
    """What a checkpoint holds besides progress and generators; `sharded`: weights are spread over the processes."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    processes: Processes = ALONE
    sharded: bool = False


def write(folder: Path, state: State, progress: dict[str, float]) -> None:
    """Trained weights, optimizer, scheduler, generators and `progress` (with its `step`); the last two are kept.

    Called by every process. Raises DiskError where the disk is full: the checkpoints before stay, half of this one
    does not.
    """
    processes, path = state.processes, folder / f"checkpoint-{int(progress['step']):06d}"
    own = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        own["cuda"] = torch.cuda.get_rng_state()
    generators = processes.gather(own)
    with ExitStack() as unfinished:
        temporary = processes.on_main(lambda: _start(path, unfinished))
        with writing(path.name):
            sums = _write_shards(temporary, state) if state.sharded else {}
        processes.on_main(lambda: _finish(temporary, path, state, progress, generators, sums, unfinished))


def _start(path: Path, unfinished: ExitStack) -> Path:
    """Where a checkpoint is written before it is whole; what killed runs left of theirs is removed."""
    for left in path.parent.glob(UNFINISHED):
        shutil.rmtree(left)
    with writing(path.name):
        temporary = unfinished.enter_context(written_whole(path))
        temporary.mkdir()
    return temporary


def _write_shards(temporary: Path, state: State) -> dict[str, str]:
    """Each process writes its part of weights and optimizer, and sums it up; the checksums of all parts."""
    try:
        dcp.save(_shards_of(state), checkpoint_id=temporary / SHARDS)
    except CheckpointException as error:
        raise OSError(str(error)) from error
    own = (temporary / SHARDS).glob(f"__{state.processes.rank}_*")
    parts = state.processes.gather(_checksums(temporary, own))
    return {name: digest for part in parts for name, digest in part.items()}


def _finish(
    temporary: Path, path: Path, state: State, progress: dict[str, float], generators: list[Any],
    sums: dict[str, str], unfinished: ExitStack,
) -> None:  # fmt: skip
    """The rest of a checkpoint with the checksum of every file; it gets its name once the log is on the disk too."""
    rest: dict[str, Any] = {"scheduler": state.scheduler.state_dict(), "generators": generators}
    with writing(path.name):
        if not state.sharded:
            weights = {name: weight.contiguous() for name, weight in _trained(state.model).items()}
            save_file(weights, temporary / WEIGHTS_FILE)
            rest["optimizer"] = state.optimizer.state_dict()
        torch.save(rest, temporary / STATE_FILE)
        write_json(temporary / PROGRESS_FILE, progress)
        files = {file for file in temporary.rglob("*") if file.is_file()} - {temporary / name for name in sums}
        write_json(temporary / MANIFEST_FILE, sums | _checksums(temporary, files))
        shutil.rmtree(path, ignore_errors=True)
        for log in path.parent.glob(LOG_FILE):
            sync(log)
        unfinished.close()
    for older in _found(path.parent)[:-KEPT]:
        shutil.rmtree(older)


def read_latest(folder: Path, state: State) -> dict[str, Any] | None:
    """Put the latest whole checkpoint into model, optimizer, scheduler and generators; its progress, or None.

    Damaged ones are named in a warning and removed. Written by another number of processes it is read all the same,
    which is said: losses agree up to rounding, dropout draws anew.
    """
    processes = state.processes
    path = processes.on_main(lambda: _latest_whole(folder))
    if path is None:
        return None
    progress: dict[str, Any] = json.loads((path / PROGRESS_FILE).read_text())
    rest = torch.load(path / STATE_FILE, map_location="cpu", weights_only=True)
    if state.sharded:
        shards = _shards_of(state)
        dcp.load(shards, checkpoint_id=path / SHARDS)
        set_state_dict(
            state.model, state.optimizer, model_state_dict=shards["model"], optim_state_dict=shards["optimizer"],
            options=StateDictOptions(ignore_frozen_params=True, strict=False),
        )  # fmt: skip
    else:
        weights = load_file(path / WEIGHTS_FILE)
        for name, weight in _trained(state.model).items():
            weight.copy_(weights[name])
        state.optimizer.load_state_dict(rest["optimizer"])
    state.scheduler.load_state_dict(rest["scheduler"])
    saved = rest["generators"]
    if len(saved) != processes.size:
        logger.warning("%d processes go on with what %d began: equal up to rounding", processes.size, len(saved))
        return progress
    torch.set_rng_state(saved[processes.rank]["cpu"])
    if torch.cuda.is_available() and "cuda" in saved[processes.rank]:
        torch.cuda.set_rng_state(saved[processes.rank]["cuda"])
    return progress


def _shards_of(state: State) -> dict[str, Any]:
    options = StateDictOptions(ignore_frozen_params=True)
    weights, optimizer = get_state_dict(state.model, state.optimizer, options=options)
    return {"model": weights, "optimizer": optimizer}


def _latest_whole(folder: Path) -> Path | None:
    """The newest checkpoint whose files are as they were written; newer ones are removed, and that is said."""
    for path in reversed(_found(folder)):
        if not (damage := _damage(path)):
            return path
        logger.warning("%s/%s is damaged (%s): going back to the one before", folder.name, path.name, damage)
        shutil.rmtree(path)
    return None


def _damage(path: Path) -> str:
    """What is wrong with a checkpoint's files, or nothing."""
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_text())
    except (OSError, ValueError):
        return f"{MANIFEST_FILE} is missing or unreadable"
    for name, digest in manifest.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if sha256(path / name) != digest:
            return f"{name} is not as it was written"
    return ""


def _checksums(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its name in the folder."""
    return {str(file.relative_to(folder)): sha256(file) for file in files}


def remove(folder: Path) -> None:
    """Remove all checkpoints of a finished run, unfinished ones too."""
    for path in [*folder.glob("checkpoint-*"), *folder.glob(UNFINISHED)]:
        shutil.rmtree(path)


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.removeprefix("checkpoint-")))


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}
