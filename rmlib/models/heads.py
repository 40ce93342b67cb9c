"""The head of a reward model: from the hidden state of a response to its rewards, one linear layer or two."""

from __future__ import annotations

import torch
from torch import nn

Head = nn.Linear | nn.Sequential
HEAD_LAYERS = (1, 2)


def new_head(hidden_size: int, n_attributes: int, n_layers: int = 1) -> Head:
    """A head whose last layer has bias 0 and weights so small that a Bradley-Terry loss starts at ln 2.

    Two layers are Linear(hidden, hidden), ReLU, Linear(hidden, attribute), as INF-ORM-Llama3.1-70B has them (its model
    card); the first keeps torch's default initialisation. Raises ValueError for another number of layers.
    """
    if n_layers not in HEAD_LAYERS:
        raise ValueError(f"a head has {' or '.join(map(str, HEAD_LAYERS))} layers, not {n_layers}")
    last = nn.Linear(hidden_size, n_attributes)
    nn.init.normal_(last.weight, std=1 / (hidden_size + 1))
    nn.init.zeros_(last.bias)
    return last if n_layers == 1 else nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.ReLU(), last)


def draw_head(hidden_size: int, n_attributes: int, seed: int, n_layers: int = 1) -> Head:
    """The new head of a seed, without touching the caller's generators.

    On a pretrained backbone, whose weights are read and not drawn, it is the head of `RewardModel.create`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return new_head(hidden_size, n_attributes, n_layers)


def output_layer(head: Head) -> nn.Linear:
    """The last linear layer, whose rows are the attributes."""
    layer = head[-1] if isinstance(head, nn.Sequential) else head
    assert isinstance(layer, nn.Linear)
    return layer
