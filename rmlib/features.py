"""Features of a frozen backbone: each text is computed once, kept on disk, and read by every head."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import load_file, save_file

from rmlib import paths
from rmlib.batches import Prompt
from rmlib.models import RewardModel, fingerprint

KEY_BYTES = 16


def load_or_compute(
    model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[str]
) -> Float[np.ndarray, "text hidden"]:
    """`model.features` of flat lists of texts in fp32; what an earlier call computed is read from disk.

    Kept per backbone and chat template, and there per text, so features are never read for the wrong model. Every call
    that computes something adds one file; a run that dies loses only the file it had not finished.
    """
    folder = paths.runs_dir() / "features" / fingerprint(model.body_identity, model.kind, model.tokenizer.chat_template)
    keys = [_key(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    known = _read(folder)
    missing = {key: index for index, key in enumerate(keys) if key not in known}
    if missing:
        rows = list(missing.values())
        new = model.features([prompts[row] for row in rows], [responses[row] for row in rows], progress=len(rows) > 100)
        _write(folder, list(missing), new)
        known |= dict(zip(missing, new, strict=True))
    return np.stack([known[key] for key in keys])


def _key(prompt: Prompt, response: str) -> bytes:
    text = json.dumps([[message["role"], message["content"]] for message in prompt] + [response])
    return hashlib.sha256(text.encode()).digest()[:KEY_BYTES]


def _read(folder: Path) -> dict[bytes, np.ndarray]:
    known: dict[bytes, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        part = load_file(file)
        known |= {key.tobytes(): row for key, row in zip(part["keys"], part["features"], strict=True)}
    return known


def _write(folder: Path, keys: list[bytes], features: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}.safetensors"
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)
    save_file({"keys": table.copy(), "features": features}, temporary)
    temporary.replace(file)


@dataclass(frozen=True)
class FromFeatures:
    """A reward model that scores from kept features: what the backbone computed once serves every head."""

    model: RewardModel

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
        """Rewards as `RewardModel.score` gives them."""
        features = torch.from_numpy(load_or_compute(self.model, prompts, responses)).to(self.model.device)
        rewards = self.model.read(features).cpu().numpy()
        return rewards[:, 0] if rewards.shape[1] == 1 else rewards
