"""The arms of a grid on one split: what is tried, which heads are trained together, what is chosen and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from rmlib.experiments import scoring
from rmlib.experiments.arms import changes, is_derived, line_of, settings_for, waits_for
from rmlib.experiments.derived import MarginsAt, fitted
from rmlib.experiments.presets import Preset
from rmlib.losses import mean_rating
from rmlib.models import features
from rmlib.pairs.views import margins_of_chosen
from rmlib.records import paths
from rmlib.records.files import written_whole
from rmlib.records.hashing import fingerprint
from rmlib.sources import Splits, shuffled_labels
from rmlib.training import head_stacks
from rmlib.training.encoded import Encoded, Part, Scaling
from rmlib.training.head_stacks import AnyHeads, Compared, Fitted, Heads, Labels, TwoLayerHeads
from rmlib.training.settings import TrainSettings

Point = tuple[float, float]  # learning rate, weight decay
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
    surface: bool = False  # more features: those of `rmlib.models.surface_features`, standardised on training
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
    """The setting with the highest accuracy on the decided selection pairs, mean of its seeds.

    Among equals the one with the lower loss, then the smaller learning rate, then the smaller weight decay, as far as
    trials have these. `at_edge` says that its learning rate is the smallest or largest tried, so that a wider grid
    might do better.
    """
    table = pd.DataFrame(trials).drop(columns="seed")
    varied = [name for name in ("learning_rate", "weight_decay") if name in table]
    means = table.groupby(varied).mean().reset_index()
    means["rank"] = -means["accuracy"].round(12)  # means of the same counts differ in the last bits
    best = means.sort_values(["rank", *table.columns.intersection(["loss"]), *varied]).drop(columns="rank").iloc[0]
    chosen = {str(name): float(value) for name, value in best.items()}
    rates = means["learning_rate"]
    at_edge = rates.nunique() > 1 and chosen["learning_rate"] in (rates.min(), rates.max())
    return chosen | {"at_edge": at_edge, "n_settings": len(means), "n_trials": len(trials)}


class Fold:
    """The grid on one split; `fit` trains what is not kept from before."""

    def __init__(self, splits: Splits, settings: Preset, grid: Grid, inputs: Encoded) -> None:
        self.splits, self.settings, self.grid, self.inputs = splits, settings, grid, inputs
        made_by = features.identity(inputs.reader)
        name = fingerprint(settings.to_dict(), grid.to_dict(), splits.identity, made_by)
        self.folder = paths.runs_dir() / "grid" / name

    @cached_property
    def scaling(self) -> Scaling:
        """Fitted on the decided training pairs, and the same for all arms."""
        beyond = slice(-self.inputs.n_beyond, None) if self.inputs.n_beyond else slice(0)
        columns = slice(None) if self.grid.standardise else beyond
        return Scaling.fit(self.inputs.part(self.splits.train, self._settings("bt")).inputs, columns)

    def fit(self, arms: Sequence[str]) -> dict[str, ArmFit]:
        """The fit of each arm; those that other arms are made from are trained first."""
        missing = [arm for arm in line_of(*arms) if not self._file(arm).is_file()]
        derived = [arm for arm in missing if is_derived(arm)]
        together: dict[str, list[str]] = {}
        for arm in (arm for arm in missing if arm not in derived):
            if changes(arm)["loss"] == "regression":
                self._fit_regression(arm)
            else:
                together.setdefault(self._shared_with(arm), []).append(arm)
        for group in together.values():
            self._fit_preference(group)
        for arm in derived:
            self._derived(arm).save(self._file(arm))
        return {arm: ArmFit.load(self._file(arm)) for arm in arms}

    def _derived(self, arm: str) -> ArmFit:
        """The heads of an arm from the fits of those it is made from, or as the seeds draw them."""
        parents = [ArmFit.load(self._file(parent)) for parent in waits_for(arm)]
        if parents:
            return derived_heads(arm, parents, self.splits, self.read("selection"))
        drawn = self.drawn(self._settings(arm))
        return ArmFit(drawn, drawn)

    def drawn(self, settings: TrainSettings) -> AnyHeads:
        """One new head a seed."""
        kind: type[AnyHeads] = TwoLayerHeads if settings.head_layers == 2 else Heads
        width = self.inputs.model().config.hidden_size
        return kind.draw(width, len(settings.attributes), self.grid.seeds, beyond=self.inputs.n_beyond)

    def read(self, name: str) -> Tensor:
        """What heads read of both responses of every pair of a split, scaled: `[pair * 2, hidden]`."""
        return self.scaling(self.inputs.texts(getattr(self.splits, name))[0])

    def _file(self, arm: str) -> Path:
        return self.folder / f"{arm}-{fingerprint(changes(arm))}.safetensors"

    def _settings(self, arm: str) -> TrainSettings:
        return settings_for(arm, self.settings, seed=0)

    def _part(self, name: str, arm: str) -> Part:
        part = self.inputs.part(getattr(self.splits, name), self._settings(arm))
        if not part.pair_ids:
            raise GridError(f"no {name} pair that {arm!r} can learn from in {self.splits.source.name}; take more pairs")
        return replace(part, inputs=self.scaling(part.inputs))

    def _shared_with(self, arm: str) -> str:
        """What heads that are trained together must share: optimiser, kind of head, pairs, a second objective."""
        own = self._settings(arm)
        optimiser = (own.betas, own.schedule, own.warmup_steps, own.clip_norm)
        pair_ids = self.inputs.part(self.splits.train, own).pair_ids
        return fingerprint(optimiser, own.head_layers, own.regression_weight, pair_ids)

    def _fit_regression(self, arm: str) -> None:
        own = self._settings(arm)
        train, selection = (self._part(name, arm) for name in ("train", "selection"))
        objective = head_stacks.RegressionLoss(train.inputs.flatten(0, 1), train.ratings.flatten(0, 1))
        start = self._start(arm, train)
        stacked = Heads.stack([start] * len(self.grid.points))
        fitted = head_stacks.descend(stacked, objective, *self._per_head(self.grid.points, 1), own)
        loss = head_stacks.RegressionLoss(selection.inputs.flatten(0, 1), selection.ratings.flatten(0, 1))(fitted.heads)
        self._keep(arm, fitted, loss)

    def _fit_preference(self, arms: Sequence[str]) -> None:
        """All heads of arms that share an optimiser, as one stack: by arm, then setting, then seed."""
        # Heads of two layers hold a matrix and the hidden units of every text each: one setting at a time.
        deep = self._settings(arms[0]).head_layers == 2
        blocks = [[point] for point in self.grid.points] if deep else [self.grid.points]
        train, selection = ({arm: self._part(name, arm) for arm in arms} for name in ("train", "selection"))
        found: dict[str, list[tuple[Fitted, Tensor]]] = {arm: [] for arm in arms}
        starts = {arm: self._start(arm, train[arm]) for arm in arms}
        objective_pairs = _compared(train[arms[0]])
        for points in blocks:
            n_heads = len(points) * len(self.grid.seeds)
            start = type(starts[arms[0]]).stack([starts[arm] for arm in arms for _ in points])
            labels = [self._labels(arm, train[arm], len(points)) for arm in arms]
            objective = self._objective(arms[0], objective_pairs, labels, train[arms[0]])
            fitted = head_stacks.descend(start, objective, *self._per_head(points, len(arms)), self._settings(arms[0]))
            for index, arm in enumerate(arms):
                own = fitted[index * n_heads : (index + 1) * n_heads]
                part = selection[arm]
                plain = [Labels(changes(arm)["loss"], n_heads, part.strength, part.target)]
                found[arm].append((own, self._objective(arm, _compared(part), plain, part)(own.heads)))
        for arm, parts in found.items():
            self._keep(arm, Fitted.stack([fitted for fitted, _ in parts]), torch.cat([loss for _, loss in parts]))

    def _objective(self, arm: str, pairs: Compared, labels: Sequence[Labels], part: Part) -> head_stacks.PreferenceLoss:
        return head_stacks.PreferenceLoss(pairs, labels, part.ratings[..., 0], self._settings(arm).regression_weight)

    def _start(self, arm: str, train: Part) -> Any:  # Heads or TwoLayerHeads: stacks of either are of one kind
        own = self._settings(arm)
        if parent := changes(arm).get("initialise_from"):
            return ArmFit.load(self._file(parent)).heads
        drawn = self.drawn(own)
        if own.loss == "regression" or own.regression_weight:
            drawn.bias[:] = mean_rating(train.ratings.flatten(0, 1))
        return drawn

    def _per_head(self, points: Sequence[Point], n_arms: int) -> tuple[Tensor, Tensor]:
        values = torch.tensor([point for _ in range(n_arms) for point in points for _ in self.grid.seeds])
        return values[:, 0].contiguous(), values[:, 1].contiguous()

    def _labels(self, arm: str, train: Part, n_points: int) -> Labels:
        """Labels of all heads of an arm; where they are shuffled, each seed has its own."""
        strength = train.strength
        if changes(arm).get("shuffle_labels"):
            strength = torch.stack([self._shuffled(train, seed) for seed in self.grid.seeds] * n_points)
        return Labels(changes(arm)["loss"], n_points * len(self.grid.seeds), strength, train.target)

    def _shuffled(self, train: Part, seed: int) -> Tensor:
        tables = self.splits.train, shuffled_labels(self.splits.train, seed)
        before, after = (table["preference"][:] for table in tables)
        kept = zip(self.splits.train["pair_id"][:], before, after, strict=True)
        turned = {pair_id for pair_id, old, new in kept if old != new}
        return train.strength * torch.tensor([-1.0 if pair_id in turned else 1.0 for pair_id in train.pair_ids])

    def _keep(self, arm: str, fitted: Fitted, loss: Tensor) -> None:
        """Choose an arm's setting among its trials, and write what it found."""
        outputs, heads, attributes = fitted.heads, fitted.heads, self._settings(arm).attributes
        if len(attributes) > 1:
            heads = outputs.weighted(list(scoring.published_weights(attributes).values()))
        margins = heads.margins(_compared(self._part("selection", "bt")))  # the decided pairs, the same for all arms
        accuracy = (margins > 0).double().mean(dim=1)
        settings = [(*point, seed) for point in self.grid.points for seed in self.grid.seeds]
        trials = [
            {"learning_rate": rate, "weight_decay": decay, "seed": seed, "accuracy": float(a), "loss": float(value)}
            for (rate, decay, seed), a, value in zip(settings, accuracy, loss, strict=True)
        ]
        selected = choose(trials)
        point = (selected["learning_rate"], selected["weight_decay"])
        own = [index for index, (rate, decay, _) in enumerate(settings) if (rate, decay) == point]
        mean = zip(fitted.steps, fitted.curve[:, own].mean(axis=1), strict=True)
        curve = [[float(step), float(value)] for step, value in mean]
        ArmFit(heads[own], outputs[own], trials, selected, curve).save(self._file(arm))


def _compared(part: Part) -> Compared:
    return Compared(*part.inputs.unbind(dim=1))


def derived_heads(arm: str, parents: Sequence[ArmFit], splits: Splits, texts: Float[Tensor, "text hidden"]) -> ArmFit:
    """The heads of an arm from the fits of those it is made from, seed by seed; `texts`: of the selection pairs."""
    outputs, parent, weak = parents[0].outputs, parents[0].heads, parents[-1].heads
    assert isinstance(parent, Heads) and isinstance(weak, Heads)
    margins = heads_margins_at(weak, parent, splits.selection, texts)
    rewards = rewards_of_pairs(parent, texts)
    details = [fitted(arm, splits, at, lambda own=own: own) for at, own in zip(margins, rewards, strict=True)]  # type: ignore[misc]
    if "attribute_weights" in details[0]:  # the same for all seeds
        return ArmFit(outputs.weighted(list(details[0]["attribute_weights"].values())), outputs, details=details)
    if "factor" in details[0]:
        factor = torch.tensor([fit["factor"] for fit in details])
        made = Heads(
            weak.weight + factor[:, None, None] * (parent.weight - weak.weight),
            weak.bias + factor[:, None] * (parent.bias - weak.bias),
        )
    else:
        own = [parent[[index]].weighted([fit["scale"]], fit["offset"]) for index, fit in enumerate(details)]
        made = Heads.stack(own)
    return ArmFit(made, made, details=details)


def heads_margins_at(
    weak: AnyHeads, strong: AnyHeads, pairs: Dataset, texts: Float[Tensor, "text hidden"]
) -> list[MarginsAt]:
    """Of each seed what `margins_at` gives: rewards of a linear head extrapolate as its weights do."""

    def between(low: np.ndarray, high: np.ndarray) -> MarginsAt:
        return lambda factor: margins_of_chosen(pairs, low + factor * (high - low))

    ends = (rewards_of_pairs(heads, texts) for heads in (weak, strong))
    return [between(low, high) for low, high in zip(*ends, strict=True)]


def rewards_of_pairs(heads: AnyHeads, texts: Float[Tensor, "text hidden"]) -> Float[np.ndarray, "head pair 2"]:
    """Rewards that heads of one output give both responses of every pair."""
    with torch.no_grad():
        return heads.rewards(texts)[..., 0].reshape(len(heads), -1, 2).numpy()
