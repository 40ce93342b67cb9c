"""What the heads of a grid read: features and labels of the pairs of all splits, tokenised and encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from rmlib.models import Prompt, RewardModel, features
from rmlib.models.features import HiddenLayer
from rmlib.models.surface_features import N_FEATURES, surface_features
from rmlib.training.examples import Examples, prepare
from rmlib.training.initial_model import create_model
from rmlib.training.settings import TrainSettings

# What of an arm's settings decides which pairs it sees, and with which labels.
LABELS = ("attributes", "strength_scale", "label_smoothing", "regression_weight", "soft_labels")


@dataclass(frozen=True)
class Scaling:
    """Shift and scale of every feature, fitted on training texts; the identity for those that are left as they are."""

    shift: Float[Tensor, "hidden"]
    scale: Float[Tensor, "hidden"]

    @classmethod
    def fit(cls, inputs: Float[Tensor, "pair 2 hidden"], columns: slice) -> Scaling:
        """Mean 0 and standard deviation 1 over both responses of the pairs, in the `columns` alone."""
        texts, width = inputs.flatten(0, 1)[:, columns].double(), inputs.shape[-1]
        shift, scale = torch.zeros(width), torch.ones(width)
        mean = texts.mean(dim=0)
        deviation = (texts - mean).square().mean(dim=0).sqrt()
        shift[columns], scale[columns] = mean.float(), torch.where(deviation > 0, deviation, 1.0).float()
        return cls(shift, scale)

    def __call__(self, inputs: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any hidden"]:
        return (inputs - self.shift) / self.scale


@dataclass(frozen=True)
class Part:
    """Pairs of one split with the labels of an arm; as in `Examples`, the first response is the chosen one."""

    inputs: Float[Tensor, "pair 2 hidden"]
    strength: Float[Tensor, "pair"]
    ratings: Float[Tensor, "pair 2 attribute"]
    target: Float[Tensor, "pair"] | None  # probability that the first response is the better one; None: 1
    pair_ids: list[str]

    @property
    def texts(self) -> Float[Tensor, "text hidden"]:
        return self.inputs.flatten(0, 1)

    def scaled(self, scaling: Scaling) -> Part:
        return replace(self, inputs=scaling(self.inputs))


@dataclass
class Inputs:
    """The pairs of a comparison, each with its features; an arm sees those that it can learn from (`prepare`)."""

    pairs: Dataset  # every pair that a head may learn or be chosen from, once
    settings: TrainSettings  # backbone, and how texts are cut
    log_length: bool = False
    surface: bool = False  # in place of the log length, which is one of its features
    layer: int | None = None  # the hidden layer that heads read (`features.HiddenLayer`); None: the last
    _examples: dict[TrainSettings, tuple[Examples, Tensor, dict[str, int]]] = field(default_factory=dict)
    _models: dict[tuple[str, ...], RewardModel] = field(default_factory=dict)

    @property
    def n_beyond(self) -> int:
        """How many features there are beside the backbone's own."""
        return N_FEATURES if self.surface else int(self.log_length)

    @cached_property
    def reader(self) -> Any:
        """What gives the backbone's own features."""
        return self.model() if self.layer is None else HiddenLayer(self.model(), self.layer)

    def model(self, attributes: Sequence[str] = ("helpfulness",)) -> RewardModel:
        """The backbone, under a head with these attributes."""
        key = tuple(attributes)
        if key not in self._models:
            self._models[key] = create_model(replace(self.settings, attributes=key))
        return self._models[key]

    def part(self, split: Dataset, settings: TrainSettings) -> Part:
        """Those pairs of a split that an arm with these settings can learn from, in the order of the split."""
        examples, inputs, rows = self._prepared(settings)
        keep = [rows[pair_id] for pair_id in split["pair_id"][:] if pair_id in rows]
        ids = [examples.pair_ids[row] for row in keep]
        target = None if examples.target is None else examples.target[keep]
        return Part(inputs[keep], examples.strength[keep], examples.ratings[keep], target, ids)

    def texts(self, split: Dataset) -> tuple[Float[Tensor, "text hidden"], int]:
        """Features of both responses of every pair, in the order of the table, and how many texts were cut."""
        prompts, responses = _flat(split)
        return self._read(prompts, responses), int(self.model().encode(prompts, responses).cut.sum())

    def _prepared(self, settings: TrainSettings) -> tuple[Examples, Tensor, dict[str, int]]:
        """Examples, what heads read of them, and the row of each pair; the same for arms with the same labels."""
        own = {name: getattr(settings, name) for name in LABELS}
        loss = "regression" if settings.loss == "regression" else "bradley_terry"  # losses of pairs see the same pairs
        key = replace(self.settings, **own, loss=loss, trainable="all")  # features are read here, not by `prepare`
        if key not in self._examples:
            examples = prepare(self.model(key.attributes), self.pairs, key)
            rows = {pair_id: row for row, pair_id in enumerate(examples.pair_ids)}
            self._examples[key] = (examples, self._of_pairs(examples, oriented=loss != "regression"), rows)
        return self._examples[key]

    def _of_pairs(self, examples: Examples, *, oriented: bool) -> Float[Tensor, "pair 2 hidden"]:
        """What heads read of both responses, in the order of the table or, `oriented`, the chosen one first."""
        rows = {pair_id: row for row, pair_id in enumerate(self.pairs["pair_id"][:])}
        both = self._table[[rows[pair_id] for pair_id in examples.pair_ids]]
        if oriented:
            second = np.array([(value or 0) > 0 for value in self.pairs["preference"][:]])
            turned = torch.from_numpy(second[[rows[pair_id] for pair_id in examples.pair_ids]])
            both[turned] = both[turned].flip(1)
        return both

    @cached_property
    def _table(self) -> Float[Tensor, "pair 2 hidden"]:
        read = self._read(*_flat(self.pairs))
        return read.view(len(self.pairs), 2, read.shape[-1])

    def _read(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Float[Tensor, "text hidden"]:
        own = torch.from_numpy(features.load_or_compute(self.reader, prompts, responses))
        return torch.cat([own, self._beyond(responses)], dim=1) if self.n_beyond else own

    def _beyond(self, responses: Sequence[str]) -> Float[Tensor, "text beyond"]:
        distinct = list(dict.fromkeys(responses))  # a response may stand in many pairs
        place = {text: index for index, text in enumerate(distinct)}
        read = surface_features(distinct)[:, : self.n_beyond]  # the log length comes first
        return read[[place[text] for text in responses]]


def _flat(pairs: Dataset) -> tuple[list[Prompt], list[str]]:
    """Prompt and response of every text, the two of a pair one after the other."""
    responses = [text for two in zip(pairs["response_1"][:], pairs["response_2"][:], strict=True) for text in two]
    return [prompt for prompt in pairs["prompt"][:] for _ in range(2)], responses
