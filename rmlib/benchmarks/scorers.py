"""Scorers by name: a ruler, a reward model of ours, any sequence classifier (a folder or hub id), or a server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rmlib import combining
from rmlib.benchmarks.endpoint import Endpoint
from rmlib.benchmarks.servers import RewardServer, is_url
from rmlib.models import RewardModel, Scorer, templates
from rmlib.models.backbones import BackboneError, Network
from rmlib.models.classifiers import DecoderClassifier, PlainClassifier, Weights, load_classifier, weight_of_each
from rmlib.models.likelihood import BETA, ImplicitReward, implicit_name, load_implicit
from rmlib.models.network import hash_of_weights
from rmlib.models.reward_model import CARD_FILE
from rmlib.models.tokens import hash_of_tokenizer
from rmlib.records import paths
from rmlib.records.hashing import fingerprint, hash_of_code
from rmlib.statistics import RULERS

# What an offline scorer needs of a repository; weights in another format are not even fetched.
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]


def open_scorer(
    name: str | Path, *,
    weights: Weights | None = None, dtype: torch.dtype = torch.float32, device: str | None = None,
    read_at: str = "transformers", chat: Mapping[str, Any] | None = None,
) -> Scorer:  # fmt: skip
    """The scorer of a name: "longer", "shorter", "chance", the URL of a server, else a folder or hub id of a model.

    `weights` fold several outputs into one, by name or in order; `device` is a GPU where there is one; `read_at` is
    explained at `classifiers.load_classifier`, `chat` at `templates.adjust`. A reward model of ours stays as precise as
    it was saved. Raises BackboneError or ModelError, as loading and weighing do.
    """
    if str(name) in RULERS:
        return RULERS[str(name)]
    if is_url(name):
        return RewardServer(Endpoint(str(name), model=""))
    folder = local_folder(str(name))
    if (folder / CARD_FILE).is_file():
        model: Any = RewardModel.load(folder)
        if chat:
            templates.adjust(model.tokenizer, **chat)
        if weights is not None or len(model.attributes) > 1:
            model = combining.weigh_attributes(model, weight_of_each(model.name, model.attributes, weights))
    else:
        model = load_classifier(folder, weights=weights, dtype=dtype, read_at=read_at, chat=chat)
        model.name = paths.public_name(str(name))  # of a hub id, the folder is named by its commit
    return model.to(device or default_device())


def open_implicit(
    policy: str | Path, reference: str | Path | None = None, *,
    beta: float = BETA, dtype: torch.dtype = torch.float32, device: str | None = None,
) -> ImplicitReward:  # fmt: skip
    """Implicit rewards of a policy over its reference (or reference-free), from folders or the hub.

    Raises BackboneError or ModelError, as `likelihood.load_implicit` does.
    """
    folders = [None if name is None else local_folder(str(name)) for name in (policy, reference)]
    assert folders[0] is not None
    model = load_implicit(folders[0], folders[1], beta=beta, dtype=dtype)
    model.name = implicit_name(policy, reference)
    return model.to(device or default_device())


def default_device() -> str:
    """A GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def local_folder(name: str) -> Path:
    """The folder itself, or the local copy of a hub id.

    Raises BackboneError where there is neither, or where the folder is that of a run and not of its model.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        inside = sorted(folder.glob(f"*/{CARD_FILE}"))
        if inside and not any((folder / file).is_file() for file in (CARD_FILE, "config.json")):
            raise BackboneError(f"{name} holds no model itself; did you mean {inside[0].parent}?")
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        of_hub = "it is no hub id" if isinstance(error, HFValidationError) else f"as a hub id: {error}"
        raise BackboneError(
            f"no model {name!r}: there is no such folder; {of_hub}\n"
            f"Name {', '.join(RULERS)}, a folder, or a hub id that this machine can reach."
        ) from error


def identity_of(model: Any) -> dict[str, str] | None:
    """Hashes of everything that a reward depends on but the text; None for a scorer whose rewards are not kept.

    Among these are rulers, and `features.FromFeatures`, whose features are on the disk already.
    """
    if isinstance(model, RewardModel):
        skipped = model.skipped if isinstance(model, DecoderClassifier) else None
        return _identity(model, {"body": model.backbone, "head": model.head}, fingerprint(model.kind, skipped))
    if isinstance(model, PlainClassifier):
        return _identity(model, {"network": model.network}, fingerprint("plain", model.row.tolist()))
    if isinstance(model, ImplicitReward):
        parts = dict(zip(("policy", "reference"), model.networks, strict=False))
        return _identity(model, parts, fingerprint("implicit", model.beta))
    return None


def _identity(model: Any, parts: Mapping[str, Network | torch.nn.Module], reading: str) -> dict[str, str]:
    """Hashed each time, since a model in training changes without notice."""
    return {
        **{name: hash_of_weights(part) for name, part in parts.items()},
        "reading": f"{reading}, {model.max_length} tokens",
        "tokenizer": hash_of_tokenizer(model.tokenizer),
        "template": fingerprint(model.tokenizer.chat_template),
        "code": hash_of_code("models"),
    }
