"""Features of a frozen backbone: each text is computed once, kept on disk, and read by every head."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from rmlib.models.interface import Prompt
from rmlib.models.reward_model import RewardModel
from rmlib.records import paths
from rmlib.records.hashing import fingerprint

KEY_BYTES = 16
# Of each model its body_identity when it was hashed, and the hashes of weights and tokenizer.
_BODIES: WeakKeyDictionary[RewardModel, tuple[str, str, str]] = WeakKeyDictionary()


class FeaturesError(ValueError):
    """A features file that was not written for this backbone, tokenizer and template, or that is no features file."""


def load_or_compute(
    model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[str]
) -> Float[np.ndarray, "text hidden"]:
    """`model.features` of flat lists of texts in fp32; what an earlier call computed is read from disk.

    Kept per backbone (its weights, not its name), tokenizer and chat template, and there per text, so features are
    never read for the wrong model; a file says itself what it belongs to, and FeaturesError names one that lies in the
    wrong place. Every call that computes something adds one file; a run that dies loses only the file it had not
    finished.
    """
    made_by = identity(model)
    folder = paths.runs_dir() / "features" / fingerprint(made_by)
    keys = [_key(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    known = _read(folder, made_by)
    missing = {key: index for index, key in enumerate(keys) if key not in known}
    if missing:
        rows = list(missing.values())
        new = model.features([prompts[row] for row in rows], [responses[row] for row in rows], progress=len(rows) > 100)
        _write(folder, list(missing), new, made_by)
        known |= dict(zip(missing, new, strict=True))
    return np.stack([known[key] for key in keys])


def identity(model: RewardModel) -> dict[str, str]:
    """Hashes of everything but the text that features depend on: weights, pooling, tokenizer, chat template."""
    body = _BODIES.get(model)
    if body is None or body[0] != model.body_identity:  # training a backbone gives it a new identity
        body = _BODIES[model] = (
            model.body_identity,
            hash_of_weights(model.backbone),
            hash_of_tokenizer(model.tokenizer),
        )
    return {
        "weights": body[1],
        "pooling": f"{model.kind}, {model.max_length} tokens",
        "tokenizer": body[2],
        "template": fingerprint(model.tokenizer.chat_template),
    }


def hash_of_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Of all that decides how it cuts a text, the chat template apart."""
    parts = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    # What the last call padded or cut is no part of the tokenizer.
    return fingerprint({name: part for name, part in parts.items() if name not in ("padding", "truncation")})


def hash_of_weights(module: nn.Module) -> str:
    """Of names, types, shapes and values of all its tensors."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _key(prompt: Prompt, response: str) -> bytes:
    text = json.dumps([[message["role"], message["content"]] for message in prompt] + [response])
    return hashlib.sha256(text.encode()).digest()[:KEY_BYTES]


def _read(folder: Path, made_by: dict[str, str]) -> dict[bytes, np.ndarray]:
    known: dict[bytes, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        keys, features = _read_file(file, made_by)
        known |= {key.tobytes(): row for key, row in zip(keys, features, strict=True)}
    return known


def _read_file(file: Path, made_by: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    try:
        with safe_open(file, framework="numpy") as part:
            found = part.metadata() or {}
            differing = [name for name, value in made_by.items() if found.get(name) != value]
            if differing:
                raise FeaturesError(
                    f"features/{file.parent.name}/{file.name} was made with another {', '.join(differing)} than the "
                    "model has; remove that file, and its texts are computed anew"
                )
            return part.get_tensor("keys"), part.get_tensor("features")
    except SafetensorError as error:
        raise FeaturesError(f"features/{file.parent.name}/{file.name} cannot be read ({error}); remove it") from error


def _write(folder: Path, keys: list[bytes], features: np.ndarray, made_by: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}.safetensors"
    temporary = file.with_suffix(f".{os.getpid()}.tmp")
    table = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)
    save_file({"keys": table.copy(), "features": features}, temporary, metadata=made_by)
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
