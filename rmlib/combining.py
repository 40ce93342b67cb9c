"""Putting trained models together: extrapolation between two (ExPO), affine calibration, weighted attributes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression

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


def rescale(model: RewardModel, scale: float, offset: float) -> RewardModel:
    """A new model whose rewards are `scale * reward + offset`, folded into the head (`fit_affine` gives the numbers).

    Raises ModelError where the model has several outputs.
    """
    if len(model.attributes) != 1:
        raise ModelError(f"{len(model.attributes)} outputs have no common scale; use weigh_attributes first")
    identity = fingerprint("rescale", model.identity, scale, offset)
    return _with_outputs(model, torch.tensor([[scale]]), offset, model.attributes, identity)


def fit_attribute_weights(ratings: ArrayLike, preference: ArrayLike) -> Float[np.ndarray, "attribute"]:
    """Weights under which the weighted ratings predict the preferences best: logistic regression, no intercept.

    `ratings` are `[pair, 2, attribute]`, given or predicted; `preference` is `[pair]`, positive where response 2 is
    preferred. The log-odds of response 2 are the weighted differences of the ratings (Bradley & Terry, 1952), so a
    weight is in logits per rating point. Ties, and pairs that lack a preference or a rating, are left out; half the
    squared norm of the weights is added to the summed loss, so that separable pairs have finite weights. Raises
    ValueError where the shapes do not fit or fewer than two pairs are left.
    """
    table, label = np.asarray(ratings, dtype=float), np.asarray(preference, dtype=float)
    if table.ndim != 3 or table.shape[:2] != (len(label), 2) or label.ndim != 1:
        raise ValueError(
            f"ratings must be [pair, 2, attribute] and preference [pair], got {table.shape}, {label.shape}"
        )
    difference = table[:, 1] - table[:, 0]
    known = ~np.isnan(difference).any(axis=1) & ~np.isnan(label) & (label != 0)
    if known.sum() < 2:
        raise ValueError(
            f"{known.sum()} of {len(label)} pairs have a preference and all ratings; two or more are needed"
        )
    # Without an intercept, turning a pair round leaves its loss unchanged; half of them turned give two classes.
    side = np.where(np.arange(known.sum()) % 2, 1.0, -1.0)
    turned = difference[known] * (side * np.sign(label[known]))[:, None]
    return LogisticRegression(fit_intercept=False, max_iter=1000, tol=1e-8).fit(turned, side).coef_[0]


def weigh_attributes(model: RewardModel, weights: Mapping[str, float]) -> RewardModel:
    """A new model with one output, the weighted sum of the attributes; the weights are folded into the head.

    Raises ModelError where a weight names no attribute of the model, or an attribute has no weight.
    """
    if set(weights) != set(model.attributes):
        raise ModelError(f"weights are for {sorted(weights)}, the model has {sorted(model.attributes)}")
    row = torch.tensor([[weights[name] for name in model.attributes]])
    return _with_outputs(model, row, 0.0, ("weighted",), fingerprint("weigh", model.identity, dict(weights)))


def _with_outputs(
    model: RewardModel, matrix: Float[torch.Tensor, "new old"], offset: float, attributes: Sequence[str], identity: str
) -> RewardModel:
    """A new model whose outputs are `matrix @ outputs + offset`, folded into the last layer of the head."""
    changed = copy.deepcopy(model)
    layer, matrix = changed.output_layer, matrix.to(model.device)
    layer.weight = torch.nn.Parameter(matrix @ layer.weight.data)
    layer.bias = torch.nn.Parameter(matrix @ layer.bias.data + offset)
    layer.out_features = len(matrix)
    changed.attributes, changed.identity = tuple(attributes), identity
    return changed
