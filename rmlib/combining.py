"""Putting trained models together: extrapolation between two (ExPO), affine calibration, weighted attributes."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike

from rmlib.models import ModelError, RewardModel, fingerprint

PAPER_FACTOR = 1.52  # of the released 70B model, in the parametrisation of `extrapolate`


def extrapolate(weak: RewardModel, strong: RewardModel, factor: float) -> RewardModel:
    """A new model at `weak + factor * (strong - weak)`: every parameter, head included.

    0 gives the weak model, 1 the strong one; the paper took 1.52. In ExPO's own parametrisation,
    `strong + alpha * (strong - weak)`, `factor = 1 + alpha`. Raises ModelError where the two differ in attributes,
    parameter names or shapes. Source: ExPO (Zheng et al., arXiv 2404.16792); arXiv 2410.01257.
    """
    if weak.attributes != strong.attributes:
        raise ModelError(f"attributes differ: {weak.attributes} and {strong.attributes}")
    old, new = weak.state_dict(), strong.state_dict()
    differing = [name for name in old.keys() | new.keys() if name not in old or name not in new]
    differing = differing or [name for name in old if old[name].shape != new[name].shape]
    if differing:
        raise ModelError(f"parameters differ in name or shape: {sorted(differing)[:5]}; both need the same backbone")
    model = copy.deepcopy(strong)
    model.load_state_dict(
        {
            name: (old[name] + factor * (new[name] - old[name])).to(new[name].dtype)
            if new[name].is_floating_point()
            else new[name]
            for name in new
        }
    )
    model.identity = fingerprint("extrapolate", weak.identity, strong.identity, factor)
    if weak.body_identity != strong.body_identity:
        model.body_identity = model.identity
    return model


def fit_affine(rewards: ArrayLike, ratings: ArrayLike) -> tuple[float, float]:
    """`(scale, offset)` of the least-squares line from rewards `[n]` in logits to ratings `[n]`, NaN ratings left out.

    Brings Bradley-Terry rewards, whose zero is arbitrary, to the 0-4 scale. Raises ValueError where the shapes differ
    or fewer than two different rewards are rated.
    """
    x, y = np.asarray(rewards, dtype=float), np.asarray(ratings, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"rewards and ratings must be two equally long vectors, got {x.shape} and {y.shape}")
    rated = ~np.isnan(y)
    if len(np.unique(x[rated])) < 2:
        raise ValueError("a line needs at least two different rewards with ratings")
    scale, offset = np.polyfit(x[rated], y[rated], deg=1)
    return float(scale), float(offset)


def weigh_attributes(model: RewardModel, weights: Mapping[str, float]) -> RewardModel:
    """A new model with one output, the weighted sum of the attributes; the weights are folded into the head.

    Raises ModelError where a weight names no attribute of the model, or an attribute has no weight.
    """
    if set(weights) != set(model.attributes):
        raise ModelError(f"weights are for {sorted(weights)}, the model has {sorted(model.attributes)}")
    row: Float[torch.Tensor, "1 attribute"] = torch.tensor([[weights[name] for name in model.attributes]])
    weighted = copy.deepcopy(model)
    layer = weighted.output_layer
    layer.weight = torch.nn.Parameter(row.to(model.device) @ layer.weight.data)
    layer.bias = torch.nn.Parameter(row.to(model.device) @ layer.bias.data)
    layer.out_features = 1
    weighted.attributes = ("weighted",)
    weighted.identity = fingerprint("weigh", model.identity, dict(weights))
    return weighted
