"""Putting trained models together: extrapolation (ExPO), averages, ensembles, affine maps, weighted attributes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from peft import PeftModel
from torch import Tensor

from rmlib.batches import Prompt
from rmlib.extrapolation import Combine, Origin, combined, write_combined
from rmlib.models import ModelError, RewardModel, fingerprint

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

    def line(tensors: Sequence[Tensor]) -> Tensor:
        old, new = tensors
        return old + factor * (new - old)

    def origin(identities: Sequence[str]) -> str:
        return fingerprint("extrapolate", *identities, factor)

    return _combine([weak, strong], line, origin, folder)


@overload
def average(models: Sequence[RewardModel]) -> RewardModel: ...
@overload
def average(models: Sequence[Folder], folder: Folder) -> Path: ...
def average(models: Sequence[RewardModel] | Sequence[Folder], folder: Folder | None = None) -> RewardModel | Path:
    """A new model whose parameters are the means of those of the models, head included.

    For models fine-tuned from the same initial weights: between others the mean of weights means nothing. Folders and
    errors as in `extrapolate`. Source: model soups (Wortsman et al., arXiv 2203.05482), the uniform one.
    """
    if len(models) < 2:
        raise ModelError(f"an average needs at least two models, got {len(models)}")

    def mean(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(tensors)).mean(dim=0)

    def origin(identities: Sequence[str]) -> str:
        return fingerprint("average", *identities)

    return _combine(models, mean, origin, folder)


def _combine(
    models: Sequence[RewardModel | Folder], combine: Combine, origin: Origin, folder: Folder | None
) -> RewardModel | Path:
    if all(isinstance(model, RewardModel) for model in models):
        if folder is not None:
            raise ModelError("models in memory are combined in memory: leave out the folder, and save the result")
        return _combined_model([model for model in models if isinstance(model, RewardModel)], combine, origin)
    folders = [Path(model) for model in models if not isinstance(model, RewardModel)]
    if len(folders) < len(models) or folder is None:
        raise ModelError("give models alone, or folders alone and the folder that the new model is written to")
    return write_combined(folders, combine, Path(folder), origin=origin)


def _combined_model(models: Sequence[RewardModel], combine: Combine, origin: Origin) -> RewardModel:
    merged = [_merged(model) for model in models]
    model = copy.deepcopy(models[-1]) if merged[-1] is models[-1] else merged[-1]
    states = [other.state_dict() for other in merged]
    for other, state in zip(models, states, strict=True):
        _refuse_differences(other, models[-1], state, states[-1])
    model.load_state_dict({name: combined([state[name] for state in states], combine, name) for name in states[-1]})
    model.identity = origin([other.identity for other in models])
    if len({other.body_identity for other in models}) > 1:
        model.body_identity = model.identity
    return model


def _refuse_differences(
    one: RewardModel, other: RewardModel, old: Mapping[str, Tensor], new: Mapping[str, Tensor]
) -> None:
    if one.attributes != other.attributes:
        raise ModelError(f"attributes differ: {one.attributes} and {other.attributes}")
    differing = [name for name in old.keys() | new.keys() if name not in old or name not in new]
    differing = differing or [name for name in old if old[name].shape != new[name].shape]
    if differing:
        raise ModelError(f"parameters differ in name or shape: {sorted(differing)[:5]}; both need the same backbone")
    if differing := [name for name in old if old[name].dtype != new[name].dtype]:
        name = min(differing)
        dtypes = f"{old[name].dtype} and {new[name].dtype}"
        raise ModelError(f"{len(differing)} parameters differ in dtype, e.g. {name}: {dtypes}")


def _merged(model: RewardModel) -> RewardModel:
    """The model, or where it is adapted a copy whose backbone holds the weights that its rewards come from."""
    if getattr(model.config, "quantization_config", None) is not None:
        raise ModelError(
            f"the backbone {model.name} is quantised: load the models without quantization to combine them"
        )
    if not isinstance(model.backbone, PeftModel):
        return model
    merged = copy.deepcopy(model)
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


def weigh_attributes(model: RewardModel, weights: Mapping[str, float]) -> RewardModel:
    """A new model with one output, the weighted sum of the attributes; the weights are folded into the head.

    Raises ModelError where a weight names no attribute of the model, or an attribute has no weight.
    """
    if set(weights) != set(model.attributes):
        raise ModelError(f"weights are for {sorted(weights)}, the model has {sorted(model.attributes)}")
    row: Float[torch.Tensor, "1 attribute"] = torch.tensor([[weights[name] for name in model.attributes]])
    weighted = copy.deepcopy(model)
    weighted.head = torch.nn.Linear(model.head.in_features, 1)
    weighted.head.weight.data = row @ model.head.weight.data.cpu()
    weighted.head.bias.data = row[0] @ model.head.bias.data.cpu()[:, None]
    weighted.attributes = ("weighted",)
    weighted.identity = fingerprint("weigh", model.identity, dict(weights))
    return weighted.to(model.device)


class Scorer(Protocol):
    """Anything that gives rewards: a model, one that reads kept features, a baseline."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> np.ndarray: ...


@dataclass(frozen=True)
class Ensemble:
    """The mean of the members' standardised rewards, with their disagreement as uncertainty.

    Each member's rewards are standardised by the mean and standard deviation that it gives the reference texts of
    `fit`, so that a reward does not depend on what is scored with it and no member weighs more for its scale. The
    result is put back on the members' mean scale and offset: an ensemble of equal members is that member.
    """

    members: tuple[Scorer, ...]
    offsets: Float[np.ndarray, "member"]
    scales: Float[np.ndarray, "member"]

    @classmethod
    def fit(cls, members: Sequence[Scorer], prompts: Sequence[Prompt], responses: Sequence[str]) -> Ensemble:
        """Scales from reference texts, such as the selection split; ValueError where a member gives but one reward."""
        if not members:
            raise ValueError("an ensemble needs at least one member")
        rewards = _rewards(members, prompts, responses)
        scales = rewards.std(axis=1)
        if flat := np.flatnonzero(~(scales > 0)).tolist():
            raise ValueError(f"members {flat} give every reference text the same reward, or no number: leave them out")
        return cls(tuple(members), rewards.mean(axis=1), scales)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Float[np.ndarray, "response"]:
        """Rewards, in logits of the members' mean scale."""
        return self._standardised(prompts, responses).mean(axis=0) * self.scales.mean() + self.offsets.mean()

    def uncertainty(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Float[np.ndarray, "response"]:
        """Standard deviation of a response's reward over the members, on the scale of `score`; 0 for one member."""
        return self._standardised(prompts, responses).std(axis=0) * self.scales.mean()

    def _standardised(
        self, prompts: Sequence[Prompt], responses: Sequence[str]
    ) -> Float[np.ndarray, "member response"]:
        rewards = _rewards(self.members, prompts, responses)
        return (rewards - self.offsets[:, None]) / self.scales[:, None]


def _rewards(
    members: Sequence[Scorer], prompts: Sequence[Prompt], responses: Sequence[str]
) -> Float[np.ndarray, "member response"]:
    rewards = [np.asarray(member.score(prompts, responses), dtype=float) for member in members]
    if any(values.ndim != 1 for values in rewards):
        raise ValueError("each member must give one reward a response; fold several attributes with weigh_attributes")
    return np.stack(rewards)
