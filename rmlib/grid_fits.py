"""The arms of a grid on one split: which heads are trained, which setting is chosen, and what is kept on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rmlib import features, paths, scoring
from rmlib.arms import changes, settings_for
from rmlib.grid_inputs import Inputs, Part, Scaling
from rmlib.head_stacks import (
    Heads,
    fit_heads,
    fit_regression_heads,
    mean_rating,
    preference_losses,
    regression_losses,
)
from rmlib.models import fingerprint
from rmlib.presets import Preset
from rmlib.settings import TrainSettings
from rmlib.splits import Splits, shuffled_labels


class GridError(ValueError):
    """A grid that cannot be trained: an arm that no linear head expresses, an empty grid, a backbone that varies."""


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
    standardise: bool = False  # every feature to mean 0 and standard deviation 1 on the training texts

    def __post_init__(self) -> None:
        for name in ("learning_rates", "weight_decays", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise GridError(f"{name} must hold at least one value, each once; got {values}")
        if self.n_steps < 1:
            raise GridError(f"n_steps must be positive, got {self.n_steps}")

    @property
    def points(self) -> list[tuple[float, float]]:
        """Learning rate and weight decay of each setting."""
        return list(product(self.learning_rates, self.weight_decays))

    @property
    def n_heads(self) -> int:
        """How many heads one arm trains: the number of its trials."""
        return len(self.points) * len(self.seeds)


@dataclass(frozen=True)
class ArmFit:
    """One arm on one split: every trial, the chosen setting, and the chosen setting's heads, one for each seed."""

    heads: Heads  # one output each; several attributes are summed by the published weights
    trials: list[dict[str, float]]  # learning_rate, weight_decay, seed; accuracy and loss on the selection split
    selected: dict[str, float]
    curve: list[list[float]]  # step, and mean training loss of the chosen heads before it

    def save(self, file: Path) -> None:
        """Write to a temporary name, then rename: a reader never sees half of it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        told = {name: json.dumps(getattr(self, name)) for name in ("trials", "selected", "curve")}
        save_file({"weight": self.heads.weight.contiguous(), "bias": self.heads.bias}, temporary, metadata=told)
        temporary.replace(file)

    @classmethod
    def load(cls, file: Path) -> ArmFit:
        """What `save` wrote."""
        with safe_open(file, framework="pt") as kept:
            told = {name: json.loads(text) for name, text in kept.metadata().items()}
            return cls(Heads(kept.get_tensor("weight"), kept.get_tensor("bias")), **told)


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


class Fold:
    """The grid on one split; `fit` trains what is not kept from before."""

    def __init__(self, splits: Splits, settings: Preset, grid: Grid, inputs: Inputs) -> None:
        self.splits, self.settings, self.grid, self.inputs = splits, settings, grid, inputs
        made_by = features.identity(inputs.model())
        name = fingerprint(settings.to_dict(), asdict(grid), splits.identity, made_by)
        self.folder = paths.runs_dir() / "grid" / name

    @cached_property
    def scaling(self) -> Scaling:
        """Fitted on the decided training pairs, and the same for all arms."""
        columns = slice(None) if self.grid.standardise else slice(-1, None) if self.grid.log_length else slice(0)
        part = self.inputs.part(self.splits.train, "bradley_terry", ("helpfulness",))
        return Scaling.fit(part.inputs, columns)

    def fit(self, arms: Sequence[str]) -> dict[str, ArmFit]:
        """The fit of each arm; those that other arms start from are trained first."""
        parents = [changes(arm)["initialise_from"] for arm in arms if "initialise_from" in changes(arm)]
        missing = [arm for arm in dict.fromkeys([*parents, *arms]) if not self._file(arm).is_file()]
        together: dict[str, list[str]] = {}
        for arm in missing:
            if changes(arm)["loss"] == "regression":
                self._fit_regression(arm)
            else:
                together.setdefault(_optimiser(self._settings(arm)), []).append(arm)
        for group in together.values():
            self._fit_preference(group)
        return {arm: ArmFit.load(self._file(arm)) for arm in arms}

    def _file(self, arm: str) -> Path:
        return self.folder / f"{arm}-{fingerprint(changes(arm))}.safetensors"

    def _settings(self, arm: str) -> TrainSettings:
        return settings_for(arm, self.settings, seed=0)

    def _part(self, name: str, loss: str, attributes: Sequence[str] = ("helpfulness",)) -> Part:
        part = self.inputs.part(getattr(self.splits, name), loss, attributes)
        if not part.pair_ids:
            raise GridError(f"no {name} pair that {loss} can learn from in {self.splits.source.name}; take more pairs")
        return part.scaled(self.scaling)

    def _fit_regression(self, arm: str) -> None:
        attributes = self._settings(arm).attributes
        train, selection = (self._part(name, "regression", attributes) for name in ("train", "selection"))
        start = self._drawn(len(attributes))
        start.bias[:] = mean_rating(train.ratings.flatten(0, 1))
        start, (rate, decay) = Heads.stack([start] * len(self.grid.points)), self._per_head(1)
        fitted = fit_regression_heads(train.texts, train.ratings.flatten(0, 1), start, rate, decay, self._settings(arm))
        loss = regression_losses(fitted.heads.rewards(selection.texts), selection.ratings.flatten(0, 1))
        heads = fitted.heads
        if len(attributes) > 1:
            heads = heads.weighted(list(scoring.published_weights(attributes).values()))
        self._keep(arm, heads, loss, fitted.steps, fitted.curve)

    def _fit_preference(self, arms: Sequence[str]) -> None:
        """All heads of all arms whose optimiser is the same, as one stack: by arm, then setting, then seed."""
        train, selection = (self._part(name, "bradley_terry") for name in ("train", "selection"))
        n_heads, n_points = self.grid.n_heads, len(self.grid.points)
        start = Heads.stack([heads for arm in arms for heads in [self._start(arm)] * n_points])
        loss = [changes(arm)["loss"] for arm in arms for _ in range(n_heads)]
        rate, decay = self._per_head(len(arms))
        strength = self._strength(arms, train)
        chosen, rejected = train.inputs.unbind(dim=1)
        fitted = fit_heads(chosen, rejected, strength, start, loss, rate, decay, self._settings(arms[0]))
        difference = selection.inputs[:, 0] - selection.inputs[:, 1]
        losses = preference_losses(fitted.heads.margins(difference), selection.strength, loss)
        for index, arm in enumerate(arms):
            own = slice(index * n_heads, (index + 1) * n_heads)
            self._keep(arm, fitted.heads[own], losses[own], fitted.steps, fitted.curve[:, own])

    def _drawn(self, n_attributes: int) -> Heads:
        """One head a seed; features beyond the backbone's own start at weight 0."""
        drawn = Heads.draw(self.inputs.model().head.in_features, n_attributes, self.grid.seeds)
        beyond = int(self.grid.log_length)
        return Heads(torch.nn.functional.pad(drawn.weight, (0, beyond)), drawn.bias)

    def _start(self, arm: str) -> Heads:
        parent = changes(arm).get("initialise_from")
        return ArmFit.load(self._file(parent)).heads if parent else self._drawn(1)

    def _per_head(self, n_arms: int) -> tuple[Tensor, Tensor]:
        values = torch.tensor([point for _ in range(n_arms) for point in self.grid.points for _ in self.grid.seeds])
        return values[:, 0].contiguous(), values[:, 1].contiguous()

    def _strength(self, arms: Sequence[str], train: Part) -> Tensor:
        """Strengths of the pairs, or by head where an arm's labels are shuffled by its seeds."""
        if not any(changes(arm).get("shuffle_labels") for arm in arms):
            return train.strength
        shuffled = [self._shuffled(train, seed) for seed in self.grid.seeds]
        rows = [
            shuffled if changes(arm).get("shuffle_labels") else [train.strength] * len(self.grid.seeds) for arm in arms
        ]
        return torch.stack([row for of_seeds in rows for row in of_seeds * len(self.grid.points)])

    def _shuffled(self, train: Part, seed: int) -> Tensor:
        before, after = self.splits.train["preference"], shuffled_labels(self.splits.train, seed)["preference"]
        kept = zip(self.splits.train["pair_id"], before, after, strict=True)
        turned = {pair_id for pair_id, old, new in kept if old != new}
        return train.strength * torch.tensor([-1.0 if pair_id in turned else 1.0 for pair_id in train.pair_ids])

    def _keep(self, arm: str, heads: Heads, loss: Tensor, steps: list[int], curve: np.ndarray) -> None:
        """Choose an arm's setting among its trials, and write what it found."""
        decided = self._part("selection", "bradley_terry")
        margins = heads.margins(decided.inputs[:, 0] - decided.inputs[:, 1])
        accuracy = (margins > 0).double().mean(dim=1)
        settings = [(*point, seed) for point in self.grid.points for seed in self.grid.seeds]
        trials = [
            {"learning_rate": rate, "weight_decay": decay, "seed": seed, "accuracy": float(a), "loss": float(value)}
            for (rate, decay, seed), a, value in zip(settings, accuracy, loss, strict=True)
        ]
        selected = choose(trials)
        point = (selected["learning_rate"], selected["weight_decay"])
        own = [index for index, (rate, decay, _) in enumerate(settings) if (rate, decay) == point]
        mean = [[float(step), float(value)] for step, value in zip(steps, curve[:, own].mean(axis=1), strict=True)]
        ArmFit(heads[own], trials, selected, mean).save(self._file(arm))


def _optimiser(settings: TrainSettings) -> str:
    """What heads that are trained together must share."""
    return fingerprint(settings.betas, settings.schedule, settings.warmup_steps, settings.clip_norm)
