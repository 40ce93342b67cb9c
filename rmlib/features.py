"""Features of a frozen backbone: computed once, kept on disk, read by every head."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from safetensors.numpy import load_file, save_file

from rmlib import paths
from rmlib.batches import Prompt
from rmlib.models import RewardModel, fingerprint


def load_or_compute(model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray:
    """`model.features` of flat lists of texts, `[n, hidden]`, kept under a hash of backbone, template and texts.

    A model with another backbone or template has another file, so features are never read for the wrong one.
    """
    texts = json.dumps([[list(map(dict, prompt)) for prompt in prompts], list(responses)])
    key = fingerprint("features", model.body_identity, model.kind, model.tokenizer.chat_template, texts)
    file = paths.runs_dir() / "features" / f"{key}.safetensors"
    if not file.is_file():
        features = model.features(prompts, responses, progress=len(responses) > 100)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        save_file({"features": features}, temporary)
        temporary.replace(file)
    return load_file(file)["features"]
