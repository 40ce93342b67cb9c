"""Checkpoints of a run: written under a temporary name, then renamed, so that half of one is never read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rmlib.runs import write_json

KEPT = 2


def write(
    folder: Path, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, progress: dict[str, float]
) -> None:
    """Trained weights, optimizer, scheduler, generator and `progress` (with its `step`); the last two are kept."""
    path = folder / f"checkpoint-{int(progress['step']):06d}"
    temporary = path.with_name(path.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    weights = {name: weight.contiguous() for name, weight in _trained(model).items()}
    save_file(weights, temporary / "weights.safetensors")
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(state | {"generator": torch.get_rng_state()}, temporary / "state.pt")
    write_json(temporary / "progress.json", progress)
    temporary.replace(path)
    for older in _found(folder)[:-KEPT]:
        shutil.rmtree(older)


def read_latest(
    folder: Path, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler
) -> dict[str, Any] | None:
    """Put the latest checkpoint into model, optimizer, scheduler and generator; its progress, or None without one."""
    if not _found(folder):
        return None
    path = _found(folder)[-1]
    weights = load_file(path / "weights.safetensors", device=str(model.device))
    for name, weight in _trained(model).items():
        weight.copy_(weights[name])
    state = torch.load(path / "state.pt", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["generator"])
    return json.loads((path / "progress.json").read_text())


def remove(folder: Path) -> None:
    """Remove all checkpoints of a finished run, unfinished ones too."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-??????"))


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}
