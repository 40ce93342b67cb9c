"""What a grid tries, the rule by which it chooses, and what is kept of an arm: its trials and its chosen heads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open
from safetensors.torch import save_file

from rmlib.experiments.presets import Preset
from rmlib.records.files import written_whole
from rmlib.training.head_stacks import AnyHeads, Heads, TwoLayerHeads

# From where heads hardly move to where they jump, so that no arm's choice should lie at an end.
LEARNING_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
N_STEPS = 300


class GridError(ValueError):
    """A grid that cannot be trained: an arm that no head expresses, an empty grid, a backbone that varies."""


@dataclass(frozen=True)
class Grid:
    """What is tried for every arm: each learning rate with each weight decay, under each seed, full batch.

    Raises GridError for an empty axis, a value that stands twice, and fewer steps than one.
    """

    learning_rates: tuple[float, ...]
    weight_decays: tuple[float, ...]
    seeds: tuple[int, ...]
    n_steps: int
    log_length: bool = False  # one more feature: the logarithm of the response's characters, standardised on training
    surface: bool = (
        False  # more features: length, punctuation, words (`rmlib.models.surface_features`), standardised on training
    )
    layer: int | None = None  # hidden layer of the backbone that heads read, 0 the embeddings; None: the last
    standardise: bool = False  # every feature to mean 0 and standard deviation 1 on the training texts

    def __post_init__(self) -> None:
        for name in ("learning_rates", "weight_decays", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise GridError(f"{name} must hold at least one value, each once; got {values}")
        if self.log_length and self.surface:
            raise GridError("surface features hold the log length already: ask for one of the two")
        if self.n_steps < 1:
            raise GridError(f"n_steps must be positive, got {self.n_steps}")

    def to_dict(self) -> dict[str, Any]:
        """The grid as names and records hold it: without the inputs that were added later, where they are not used."""
        unused = {"surface": False, "layer": None}
        return {name: value for name, value in asdict(self).items() if name not in unused or value != unused[name]}

    @property
    def points(self) -> list[tuple[float, float]]:
        """Learning rate and weight decay of each setting."""
        return list(product(self.learning_rates, self.weight_decays))


def default_grid(settings: Preset, seeds: Sequence[int]) -> Grid:
    """Seven learning rates from 1e-4 to 0.1, each without weight decay, with the preset's, and with ten times that."""
    decay = settings.preference.weight_decay
    return Grid(LEARNING_RATES, tuple(sorted({0.0, decay, 10 * decay})), tuple(seeds), N_STEPS)


@dataclass(frozen=True)
class ArmFit:
    """One arm on one split: its trials, the chosen setting, and the chosen setting's heads, one for each seed.

    An arm that is made of others without training has no trials, no chosen setting and no curve.
    """

    heads: AnyHeads  # one output each; several attributes are summed by the published weights
    outputs: AnyHeads  # as trained, an output for each attribute
    trials: list[dict[str, float]] = field(default_factory=list)  # rate, decay, seed; selection accuracy and loss
    selected: dict[str, float] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)  # step, and mean loss of the chosen heads before it
    details: list[dict[str, Any]] = field(default_factory=list)  # what the record of each seed says beside that

    def save(self, file: Path) -> None:
        """Write trials and heads to one file, whole or not at all."""
        told = {name: json.dumps(getattr(self, name)) for name in ("trials", "selected", "curve", "details")}
        tensors = {
            f"{part}.{name}": tensor.clone().contiguous()
            for part in ("heads", "outputs")
            for name, tensor in getattr(self, part).tensors.items()
        }
        with written_whole(file) as temporary:
            save_file(tensors, temporary, metadata=told)

    @classmethod
    def load(cls, file: Path) -> ArmFit:
        """What `save` wrote."""
        with safe_open(file, framework="pt") as kept:
            told = {name: json.loads(text) for name, text in kept.metadata().items()}
            tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 (not a mapping)
        heads, outputs = (
            {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(part)}
            for part in ("heads", "outputs")
        )
        kind: type[AnyHeads] = TwoLayerHeads if "first_weight" in heads else Heads
        return cls(kind(**heads), kind(**outputs), **told)


def choose(trials: Sequence[dict[str, float]]) -> dict[str, float]:
    """The setting with the highest selection accuracy, mean of its seeds.

    Among equals the one with the lower loss, then the smaller learning rate, then the smaller weight decay. `at_edge`
    says that its learning rate is the smallest or largest tried, so that a wider grid might do better.
    """
    means = pd.DataFrame(trials).groupby(["learning_rate", "weight_decay"])[["accuracy", "loss"]].mean().reset_index()
    means["rank"] = -means["accuracy"].round(12)  # means of the same counts differ in the last bits
    best = means.sort_values(["rank", "loss", "learning_rate", "weight_decay"]).drop(columns="rank").iloc[0]
    chosen = {str(name): float(value) for name, value in best.items()}
    rates = means["learning_rate"]
    at_edge = rates.nunique() > 1 and chosen["learning_rate"] in (rates.min(), rates.max())
    return chosen | {"at_edge": at_edge, "n_settings": len(means), "n_trials": len(trials)}
