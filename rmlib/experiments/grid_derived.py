"""Arms of a grid that are made without training: extrapolated, weighed, brought to the rating scale, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from rmlib.experiments import arm_models, derived, sweeps
from rmlib.experiments.arms import ARMS, changes, settings_for
from rmlib.experiments.grid_choice import ArmFit
from rmlib.experiments.scoring import oriented_margins
from rmlib.training.head_stacks import AnyHeads, Heads

if TYPE_CHECKING:
    from rmlib.experiments.grid_fits import Fold


def is_derived(arm: str) -> bool:
    """Whether an arm's heads are made of others', or drawn, without a step of training."""
    return "untrained" in changes(arm) or bool({"extrapolate", *derived.DERIVATIONS} & ARMS[arm].change.keys())


def make(arm: str, parents: Sequence[ArmFit], fold: Fold) -> ArmFit:
    """The heads of an arm from the fits of those it is made from (`trained.waits_for`), seed by seed."""
    change = ARMS[arm].change
    if "extrapolate" in change:
        strong, weak = (parent.heads for parent in parents)
        assert isinstance(strong, Heads) and isinstance(weak, Heads)
        return _extrapolated(weak, strong, fold)
    if "attribute_weights" in change:
        return _weighed(arm, parents[0].outputs, fold)
    if "affine" in change:
        return _calibrated(parents[0].heads, fold)
    drawn = fold.drawn(settings_for(arm, fold.settings, seed=0))
    return ArmFit(drawn, drawn)


def _extrapolated(weak: Heads, strong: Heads, fold: Fold) -> ArmFit:
    """Of each seed the factor whose heads order the selection pairs best, the smallest among equals."""
    ends = _ends(weak, strong, fold.read("selection"))
    found = [sweeps.around_best(partial(_ordering, *two, fold.splits.selection)) for two in ends]
    details = [{"factor": sweeps.best_factor(sweep), "sweep": sweep} for sweep in found]
    factor = torch.tensor([own["factor"] for own in details])
    heads = Heads(
        weak.weight + factor[:, None, None] * (strong.weight - weak.weight),
        weak.bias + factor[:, None] * (strong.bias - weak.bias),
    )
    return ArmFit(heads, heads, details=details)


def sweeps_on_test(fits: dict[str, ArmFit], fold: Fold, texts: Tensor) -> list[sweeps.Sweep]:
    """What choosing the factor on the test pairs would have shown, seed by seed; it chooses nothing.

    The coarse factors and the chosen one, as in `experiments.sweep_beside`; none where no arm is extrapolated.
    """
    extrapolated = [arm for arm in fits if "extrapolate" in ARMS[arm].change]
    if not extrapolated:
        return []
    (arm,) = extrapolated
    strong, weak = (fold.fit([name])[name].heads for name in arm_models.waits_for(arm))
    ends = _ends(weak, strong, texts)
    factors = [sorted({*sweeps.COARSE_FACTORS, own["factor"]}) for own in fits[arm].details]
    return [
        sweeps.rows(partial(_ordering, *two, fold.splits.test), own) for two, own in zip(ends, factors, strict=True)
    ]


def _ends(weak: AnyHeads, strong: AnyHeads, read: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rewards `[pair, 2]` by the weak and the strong head of each seed."""
    return list(zip(_of_pairs(weak, read), _of_pairs(strong, read), strict=True))


def _ordering(weak: np.ndarray, strong: np.ndarray, pairs: Dataset, factor: float) -> dict[str, float]:
    """How the head at a factor orders: rewards of a linear head extrapolate as its weights do."""
    return sweeps.ordering_of(oriented_margins(pairs, weak + factor * (strong - weak)))


def _weighed(arm: str, outputs: AnyHeads, fold: Fold) -> ArmFit:
    """One output, the attributes weighed by weights fitted to ratings and preferences: the same for all seeds."""
    assert isinstance(outputs, Heads)
    attributes = settings_for(arm, fold.settings, seed=0).attributes
    weights = derived.fitted_weights(fold.splits, attributes)
    details = [{"attribute_weights": weights} for _ in range(len(outputs))]
    return ArmFit(outputs.weighted(list(weights.values())), outputs, details=details)


def _calibrated(heads: AnyHeads, fold: Fold) -> ArmFit:
    """Each seed's rewards brought to the scale of helpfulness ratings by a line of its own."""
    assert isinstance(heads, Heads)
    details = [derived.line_to_ratings(rewards, fold.splits) for rewards in _of_pairs(heads, fold.read("selection"))]
    made = Heads.stack([heads[[index]].weighted([fit["scale"]], fit["offset"]) for index, fit in enumerate(details)])
    return ArmFit(made, made, details=details)


def _of_pairs(heads: AnyHeads, read: Tensor) -> np.ndarray:
    """Rewards `[head, pair, 2]` of both responses of every pair."""
    with torch.no_grad():
        return heads.rewards(read)[..., 0].reshape(len(heads), -1, 2).numpy()
