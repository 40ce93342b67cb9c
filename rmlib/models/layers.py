"""Features from a hidden layer of a backbone in place of its last: what a text says fades there before how it says it.

Pooled as the last layer is: the masked mean of an encoder's tokens, a decoder's last token.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from rmlib.models.interface import ModelError, Prompt
from rmlib.models.reward_model import RewardModel


class HiddenLayer:
    """What `features.load_or_compute` takes in place of a model: its features are of `layer`, 0 being the embeddings.

    Raises ModelError for a layer that the backbone does not have.
    """

    def __init__(self, model: RewardModel, layer: int) -> None:
        n_layers = model.config.num_hidden_layers
        if not 0 <= layer <= n_layers:
            raise ModelError(f"{model.name} has the hidden layers 0 (embeddings) to {n_layers}, not {layer}")
        self.wide = copy.copy(model)
        # A module keeps its parts in a dictionary that a shallow copy would share.
        self.wide._modules = model._modules | {"backbone": _Layer(model.backbone, layer)}
        self.backbone, self.tokenizer, self.max_length = model.backbone, model.tokenizer, model.max_length
        self.body_identity, self.kind = model.body_identity, f"{model.kind}, hidden layer {layer}"

    def features(self, prompts: Sequence[Prompt], responses: Sequence[str], **options: Any) -> np.ndarray:
        """As `RewardModel.features`."""
        return self.wide.features(prompts, responses, **options)


class _Layer(nn.Module):
    """A backbone that passes one of its hidden layers off as the last."""

    def __init__(self, backbone: nn.Module, layer: int) -> None:
        super().__init__()
        self.backbone, self.layer = backbone, layer

    def forward(self, **inputs: Any) -> SimpleNamespace:
        states = self.backbone(**inputs, output_hidden_states=True).hidden_states
        return SimpleNamespace(last_hidden_state=states[self.layer])
