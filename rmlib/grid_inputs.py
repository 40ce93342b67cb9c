"""What the heads of a grid read: features and labels of the pairs of all splits, tokenised and encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from rmlib import features
from rmlib.examples import Examples, prepare
from rmlib.models import RewardModel
from rmlib.settings import TrainSettings
from rmlib.starts import create_model

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
    log_length: bool
    _examples: dict[TrainSettings, tuple[Examples, Tensor, dict[str, int]]] = field(default_factory=dict)
    _models: dict[tuple[str, ...], RewardModel] = field(default_factory=dict)

    @property
    def n_beyond(self) -> int:
        """How many features there are beside the backbone's own."""
        return int(self.log_length)

    def model(self, attributes: Sequence[str] = ("helpfulness",)) -> RewardModel:
        """The backbone, under a head with these attributes."""
        key = tuple(attributes)
        if key not in self._models:
            self._models[key] = create_model(replace(self.settings, attributes=key))
        return self._models[key]

    def part(self, split: Dataset, settings: TrainSettings) -> Part:
        """Those pairs of a split that an arm with these settings can learn from, in the order of the split."""
        examples, inputs, rows = self._prepared(settings)
        keep = [rows[pair_id] for pair_id in split["pair_id"] if pair_id in rows]
        ids = [examples.pair_ids[row] for row in keep]
        target = None if examples.target is None else examples.target[keep]
        return Part(inputs[keep], examples.strength[keep], examples.ratings[keep], target, ids)

    def texts(self, split: Dataset) -> tuple[Float[Tensor, "text hidden"], int]:
        """Features of both responses of every pair, in the order of the table, and how many texts were cut."""
        prompts = [prompt for prompt in split["prompt"] for _ in range(2)]
        responses = [text for two in zip(split["response_1"], split["response_2"], strict=True) for text in two]
        read = torch.from_numpy(features.load_or_compute(self.model(), prompts, responses))
        cut = int(self.model().encode(prompts, responses).cut.sum())
        return (torch.cat([read, log_lengths(responses)[:, None]], dim=1) if self.log_length else read), cut

    def _prepared(self, settings: TrainSettings) -> tuple[Examples, Tensor, dict[str, int]]:
        """Examples, what heads read of them, and the row of each pair; the same for arms with the same labels."""
        own = {name: getattr(settings, name) for name in LABELS}
        loss = "regression" if settings.loss == "regression" else "bradley_terry"  # losses of pairs see the same pairs
        key = replace(self.settings, **own, loss=loss, trainable="head")
        if key not in self._examples:
            examples = prepare(self.model(key.attributes), self.pairs, key)
            assert examples.features is not None
            inputs = examples.features
            if self.log_length:
                inputs = torch.cat([inputs, self._lengths(examples, oriented=loss != "regression")], dim=-1)
            rows = {pair_id: row for row, pair_id in enumerate(examples.pair_ids)}
            self._examples[key] = (examples, inputs, rows)
        return self._examples[key]

    def _lengths(self, examples: Examples, *, oriented: bool) -> Float[Tensor, "pair 2 1"]:
        """Log lengths of both responses, in the order of the table or, `oriented`, the chosen one first."""
        both = torch.stack([log_lengths(self.pairs[name]) for name in ("response_1", "response_2")], dim=1)
        if oriented:
            second = torch.tensor([(value or 0) > 0 for value in self.pairs["preference"]])
            both[second] = both[second].flip(1)
        rows = {pair_id: row for row, pair_id in enumerate(self.pairs["pair_id"])}
        return both[[rows[pair_id] for pair_id in examples.pair_ids]][..., None]


def log_lengths(texts: Sequence[str]) -> Float[Tensor, "text"]:
    """Natural logarithm of one more than the characters of each text."""
    return torch.from_numpy(np.log1p([len(text) for text in texts]).astype(np.float32))
