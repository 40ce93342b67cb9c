"""Features of a frozen backbone: each text is computed once, kept on disk, and read by every head."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from rmlib.models.backbones import Backbone
from rmlib.models.interface import ModelError, Prompt, Response
from rmlib.models.network import hash_of_weights
from rmlib.models.reward_model import RewardModel
from rmlib.models.tokens import hash_of_tokenizer
from rmlib.pairs.messages import conversations
from rmlib.records import paths
from rmlib.records.files import written_whole
from rmlib.records.hashing import fingerprint, hash_of_code, text_key

# Of each model its body_identity when it was hashed, and the hash.
_BODIES: WeakKeyDictionary[RewardModel | HiddenLayer, tuple[str, str]] = WeakKeyDictionary()


class FeaturesError(ValueError):
    """A features file that was not written for this backbone, tokenizer and template, or that is no features file."""


def load_or_compute(
    model: RewardModel | HiddenLayer, prompts: Sequence[Prompt], responses: Sequence[Response]
) -> Float[np.ndarray, "text hidden"]:
    """`model.features` of flat lists of texts in fp32; what an earlier call computed is read from disk.

    Kept per backbone (its weights, not its name), tokenizer and chat template, and there per text, so features are
    never read for the wrong model; a file says itself what it belongs to, and FeaturesError names one that lies in the
    wrong place. Every call that computes something adds one file, whole or not at all.
    """
    made_by = identity(model)
    folder = paths.runs_dir() / "features" / fingerprint(made_by)
    keys = [bytes.fromhex(text_key(prompt, response)) for prompt, response in zip(prompts, responses, strict=True)]
    known = _read(folder, made_by)
    missing = {key: index for index, key in enumerate(keys) if key not in known}
    if missing:
        rows = list(missing.values())
        new = model.features([prompts[row] for row in rows], [responses[row] for row in rows], progress=len(rows) > 100)
        table = np.array([np.frombuffer(key, dtype=np.uint8) for key in missing])
        name = hashlib.sha256(b"".join(missing)).hexdigest()[:16]
        with written_whole(folder / f"{name}.safetensors") as temporary:
            save_file({"keys": table, "features": new}, temporary, metadata=made_by)
        known |= dict(zip(missing, new, strict=True))
    return np.stack([known[key] for key in keys])


def identity(model: RewardModel | HiddenLayer) -> dict[str, str]:
    """Hashes of all but the text that features depend on: weights, pooling, tokenizer, chat template, code."""
    body = _BODIES.get(model)
    if body is None or body[0] != model.body_identity:  # training a backbone gives it a new identity
        body = _BODIES[model] = model.body_identity, hash_of_weights(model.backbone)
    return {
        "weights": body[1],
        "pooling": f"{model.kind}, {model.max_length} tokens",
        "tokenizer": hash_of_tokenizer(model.tokenizer),
        "template": fingerprint(model.tokenizer.chat_template),
        "code": hash_of_code("models"),
    }


def _read(folder: Path, made_by: dict[str, str]) -> dict[bytes, np.ndarray]:
    known: dict[bytes, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        name = f"features/{folder.name}/{file.name}"
        try:
            with safe_open(file, framework="numpy") as part:
                found = part.metadata() or {}
                keys, features = part.get_tensor("keys"), part.get_tensor("features")
        except SafetensorError as error:
            raise FeaturesError(f"{name} cannot be read ({error}); remove it") from error
        if differing := [key for key, value in made_by.items() if found.get(key) != value]:
            raise FeaturesError(
                f"{name} was made with another {', '.join(differing)} than the model has; remove that file, "
                "and its texts are computed anew"
            )
        known |= {key.tobytes(): row for key, row in zip(keys, features, strict=True)}
    return known


@dataclass(frozen=True)
class FromFeatures:
    """A reward model that scores from kept features: what the backbone computed once serves every head."""

    model: RewardModel

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> np.ndarray:
        """Rewards as `RewardModel.score` gives them."""
        features = load_or_compute(self.model, *conversations(prompts, responses))
        rewards = self.model(torch.from_numpy(features).to(self.model.device)).cpu().numpy()
        return rewards[:, 0] if rewards.shape[1] == 1 else rewards


class HiddenLayer:
    """What `load_or_compute` takes in place of a model: features of a hidden layer, 0 being the embeddings.

    What a text says fades there before how it says it. Pooled as the last layer is: the masked mean of an encoder's
    tokens, a decoder's last token.
    Raises ModelError for a layer that the backbone does not have.
    """

    def __init__(self, model: RewardModel, layer: int) -> None:
        n_layers = model.config.num_hidden_layers
        if not 0 <= layer <= n_layers:
            raise ModelError(f"{model.name} has the hidden layers 0 (embeddings) to {n_layers}, not {layer}")
        passed_off = copy.copy(model)
        # A module keeps its parts in a dictionary that a shallow copy would share.
        passed_off._modules = model._modules | {"backbone": _Layer(model.backbone, layer)}
        self.features = passed_off.features
        self.backbone, self.tokenizer, self.max_length = model.backbone, model.tokenizer, model.max_length
        self.body_identity, self.kind = model.body_identity, f"{model.kind}, hidden layer {layer}"


class _Layer(nn.Module):
    """A backbone that passes one of its hidden layers off as the last."""

    def __init__(self, backbone: Backbone, layer: int) -> None:
        super().__init__()
        self.backbone, self.layer = backbone, layer

    def forward(self, **inputs: object) -> SimpleNamespace:
        states = self.backbone(**inputs, output_hidden_states=True).hidden_states
        return SimpleNamespace(last_hidden_state=states[self.layer])
