"""Putting trained models together: extrapolation (ExPO), averages, ensembles, affine maps, weighted attributes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression

from rmlib.models import ModelError, Prompt, Response, RewardModel, Scorer
from rmlib.models.backbones import is_adapted
from rmlib.models.saved_tensors import Combine, Origin, combined, refuse_differences, write_combined
from rmlib.records.hashing import fingerprint

Folder = str | Path
PAPER_FACTOR = 1.52  # of the released 70B model, in the parametrisation of `extrapolate`


@overload
def extrapolate(weak: RewardModel, strong: RewardModel, factor: float) -> RewardModel: ...
@overload
def extrapolate(weak: Folder, strong: Folder, factor: float, folder: Folder) -> Path: ...
def extrapolate(
    weak: RewardModel | Folder, strong: RewardModel | Folder, factor: float, folder: Folder | None = None
) -> RewardModel | Path:
    """A new model at `weak + factor * (strong - weak)`: every parameter, head included.

    0 gives the weak model, 1 the strong one; the paper took 1.52. In ExPO's own parametrisation,
    `strong + alpha * (strong - weak)`, `factor = 1 + alpha`. Given folders of saved models, the new one is written to
    `folder`, tensor by tensor, and never lies in memory whole. Adapters are merged into their backbones first: their
    two factors do not extrapolate one by one. Raises ModelError where the two differ in attributes, parameter names,
    shapes or dtypes, where a backbone is quantised, and where `folder` exists.
    Source: ExPO (Zheng et al., arXiv 2404.16792); arXiv 2410.01257.
    """

    def combine(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        return tensors[0] + factor * (tensors[1] - tensors[0])

    def origin(identities: Sequence[str]) -> str:
        return fingerprint("extrapolate", *identities, factor)

    if isinstance(weak, RewardModel) and isinstance(strong, RewardModel) and folder is None:
        return _combined_model([weak, strong], combine, origin)
    if isinstance(weak, RewardModel) or isinstance(strong, RewardModel) or folder is None:
        raise ModelError("give two models alone, or two folders and the one that the new model is written to")
    return write_combined([Path(weak), Path(strong)], combine, Path(folder), origin=origin)


def average(models: Sequence[RewardModel]) -> RewardModel:
    """A new model whose parameters are the means of those of the models, head included.

    For models fine-tuned from the same initial weights: between others the mean of weights means nothing. Errors as in
    `extrapolate`. Source: model soups (Wortsman et al., arXiv 2203.05482), the uniform one.
    """
    if len(models) < 2:
        raise ModelError(f"an average needs at least two models, got {len(models)}")
    return _combined_model(
        models,
        lambda tensors: torch.stack(list(tensors)).mean(dim=0),
        lambda identities: fingerprint("average", *identities),
    )


def _combined_model(models: Sequence[RewardModel], combine: Combine, origin: Origin) -> RewardModel:
    merged = [_merged(model) for model in models]
    model = copy.deepcopy(models[-1]) if merged[-1] is models[-1] else merged[-1]
    states = [other.state_dict() for other in merged]
    kinds = [{name: (str(value.dtype), tuple(value.shape)) for name, value in state.items()} for state in states]
    for other, own in zip(models, kinds, strict=True):
        if other.attributes != models[-1].attributes:
            raise ModelError(f"attributes differ: {other.attributes} and {models[-1].attributes}")
        if other.tokenizer.chat_template != models[-1].tokenizer.chat_template:
            raise ModelError(f"{other.name} and {models[-1].name} write conversations by different chat templates")
        refuse_differences(other.name, own, models[-1].name, kinds[-1])
    model.load_state_dict({name: combined([state[name] for state in states], combine, name) for name in states[-1]})
    model.identity = origin([other.identity for other in models])
    if len({other.body_identity for other in models}) > 1:
        model.body_identity = model.identity
    return model


def _merged(model: RewardModel) -> RewardModel:
    """The model, or where it is adapted a copy whose backbone holds the weights that its rewards come from."""
    if getattr(model.config, "quantization_config", None) is not None:
        raise ModelError(f"the backbone {model.name} is quantised: load models without quantization to combine them")
    merged = copy.deepcopy(model) if is_adapted(model.backbone) else model
    if is_adapted(merged.backbone):
        merged.backbone = merged.backbone.merge_and_unload()
    return merged


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
        raise ValueError(f"ratings must be [pair, 2, attribute], preference [pair], got {table.shape}, {label.shape}")
    difference = table[:, 1] - table[:, 0]
    known = ~np.isnan(difference).any(axis=1) & ~np.isnan(label) & (label != 0)
    if known.sum() < 2:
        raise ValueError(f"{known.sum()} of {len(label)} pairs have a preference and all ratings; two are needed")
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


@dataclass(frozen=True)
class Ensemble:
    """The mean of the members' rewards, each standardised by its mean and standard deviation on the texts of `fit`.

    So a reward does not depend on what is scored with it, and no member weighs more for its scale. The result is put
    back on the members' mean scale and offset: an ensemble of equal members is that member.
    """

    members: tuple[Scorer, ...]
    offsets: Float[np.ndarray, "member"]
    scales: Float[np.ndarray, "member"]
    reference: str = ""  # names the texts of `fit`: scales themselves differ in their last digits with the threads

    @classmethod
    def fit(cls, members: Sequence[Scorer], prompts: Sequence[Prompt], responses: Sequence[Response]) -> Ensemble:
        """Scales from reference texts, such as the selection split; ValueError where a member gives but one reward."""
        if not members:
            raise ValueError("an ensemble needs at least one member")
        rewards = _rewards(members, prompts, responses)
        scales = rewards.std(axis=1)
        if flat := np.flatnonzero(~(scales > 0)).tolist():
            raise ValueError(f"members {flat} give every reference text the same reward, or no number: leave them out")
        return cls(tuple(members), rewards.mean(axis=1), scales, fingerprint(list(prompts), list(responses)))

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Float[np.ndarray, "response"]:
        """Rewards, in logits of the members' mean scale."""
        rewards = _rewards(self.members, prompts, responses)
        standardised = (rewards - self.offsets[:, None]) / self.scales[:, None]
        return standardised.mean(axis=0) * self.scales.mean() + self.offsets.mean()


def _rewards(
    members: Sequence[Scorer], prompts: Sequence[Prompt], responses: Sequence[Response]
) -> Float[np.ndarray, "member response"]:
    rewards = [np.asarray(member.score(prompts, responses), dtype=float) for member in members]
    if any(values.ndim != 1 for values in rewards):
        raise ValueError("each member must give one reward a response; fold several attributes with weigh_attributes")
    return np.stack(rewards)
