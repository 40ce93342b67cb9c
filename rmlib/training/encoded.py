"""The table of pairs as arrays, which heads on a frozen backbone read: features of every text, labels of every pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from rmlib.models import Prompt, RewardModel, features
from rmlib.models.features import HiddenLayer
from rmlib.models.surface_features import surface_features
from rmlib.pairs.messages import Response, text_of
from rmlib.pairs.views import signs, texts_of
from rmlib.training.examples import prepare
from rmlib.training.runs import create_model
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

    def select(self, rows: list[int]) -> Part:
        target, ids = None if self.target is None else self.target[rows], [self.pair_ids[row] for row in rows]
        return Part(self.inputs[rows], self.strength[rows], self.ratings[rows], target, ids)


@dataclass
class Encoded:
    """The table of pairs as arrays: every text is encoded once, and an arm sees the pairs that it can learn from."""

    pairs: Dataset  # every pair that a head may learn or be chosen from, once
    settings: TrainSettings  # backbone, and how texts are cut
    n_beyond: int = 0  # features beside the backbone's own: the first of `surface_features`, the log length before all
    layer: int | None = None  # the hidden layer that heads read (`features.HiddenLayer`); None: the last
    _parts: dict[TrainSettings, Part] = field(default_factory=dict)
    _models: dict[tuple[str, ...], RewardModel] = field(default_factory=dict)

    @cached_property
    def reader(self) -> RewardModel | HiddenLayer:
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
        whole = self._labelled(settings)
        rows = {pair_id: row for row, pair_id in enumerate(whole.pair_ids)}
        return whole.select([rows[pair_id] for pair_id in split["pair_id"][:] if pair_id in rows])

    def texts(self, split: Dataset) -> tuple[Float[Tensor, "text hidden"], int]:
        """Features of both responses of every pair, in the order of the table, and how many texts were cut."""
        prompts, responses = texts_of(split)
        return self._read(prompts, responses), int(self.model().encode(prompts, responses).cut.sum())

    def _labelled(self, settings: TrainSettings) -> Part:
        """All pairs with the labels of an arm; kept for the arms with the same labels."""
        own = {name: getattr(settings, name) for name in LABELS}
        loss = "regression" if settings.loss == "regression" else "bradley_terry"  # losses of pairs see the same pairs
        key = replace(self.settings, **own, loss=loss, trainable="all")  # features are read here, not by `prepare`
        if key not in self._parts:
            examples = prepare(self.model(key.attributes), self.pairs, key)
            place = {pair_id: row for row, pair_id in enumerate(self.pairs["pair_id"][:])}
            rows = [place[pair_id] for pair_id in examples.pair_ids]
            inputs = self._table[rows]
            if loss != "regression":  # the examples have the chosen response first, the table has it anywhere
                turned = torch.from_numpy(signs(self.pairs)[rows] > 0)
                inputs[turned] = inputs[turned].flip(1)
            self._parts[key] = Part(inputs, examples.strength, examples.ratings, examples.target, examples.pair_ids)
        return self._parts[key]

    @cached_property
    def _table(self) -> Float[Tensor, "pair 2 hidden"]:
        read = self._read(*texts_of(self.pairs))
        return read.view(len(self.pairs), 2, read.shape[-1])

    def _read(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Float[Tensor, "text hidden"]:
        own = torch.from_numpy(features.load_or_compute(self.reader, prompts, responses))
        if not self.n_beyond:
            return own
        texts = [text_of(response) for response in responses]
        place = {text: index for index, text in enumerate(dict.fromkeys(texts))}  # one may stand in many pairs
        beyond = surface_features(list(place))[:, : self.n_beyond]
        return torch.cat([own, beyond[[place[text] for text in texts]]], dim=1)
