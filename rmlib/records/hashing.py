"""What names a state or a run: a hash of how it came about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch


def fingerprint(*parts: Any) -> str:
    """First 16 hex digits of the SHA-256 of the parts as JSON: the name of a state or of a run."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def identity_of_new(
    backbone: str,
    attributes: Sequence[str],
    *,
    head_layers: int = 1,
    lora: dict[str, Any] | None = None,
    quantization: dict[str, Any] | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> str:
    """The `identity` of what `RewardModel.create` would make, without making it."""
    asked = (backbone, tuple(attributes), lora, quantization, seed, str(dtype))
    return fingerprint("create", *asked, *deeper(head_layers))


def deeper(n_layers: int) -> tuple[str, ...]:
    """What a head of more than one layer adds to a model's identity; those of one layer keep the names they had."""
    return () if n_layers == 1 else (f"head of {n_layers} layers",)


PACKAGE = Path(__file__).resolve().parents[1]


@cache
def hash_of_code(*rooms: str, package: Path = PACKAGE) -> str:
    """16 hex digits of the source of whole rooms: what is kept under it is not read once any of their modules changed.

    A room is a folder of rmlib or a module beside the rooms ("models", "combining"). Raises FileNotFoundError for
    another name, since the hash of nothing would never change.
    """
    digest = hashlib.sha256()
    for room in sorted(rooms):
        files = sorted((package / room).rglob("*.py")) or [package / f"{room}.py"]
        for file in files:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(package).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]
