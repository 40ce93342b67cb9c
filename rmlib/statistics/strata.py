"""Where a model is right: accuracy by a property of the pairs, and accuracy with length held equal."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import expit

from rmlib.statistics.intervals import Interval, Resamples, bootstrap_interval, percentile_interval, zero_or_one

_RIDGE = 0.1  # keeps the fit finite where length alone tells right from wrong; a tenth of a pair's weight
_STEPS, _LONGEST_STEP = 60, 1.0  # of Newton's method; a longer step can overshoot where the likelihood is flat


def accuracy_by_stratum(
    correct: ArrayLike, strata: ArrayLike, *, seed: int, groups: ArrayLike | None = None
) -> pd.DataFrame:
    """Accuracy in each stratum with its 95 % bootstrap interval: index stratum, columns estimate, low, high, n.

    Args:
        correct: 0 or 1, `[item]` or `[seed, item]`.
        strata: `[item]`, the stratum of each; strata come in sorted order.
    A stratum that holds one group alone has the bounds 0 and 1. Raises ValueError for strata of other items and for a
    value other than 0 and 1.
    """
    table = zero_or_one(correct)
    labels = np.asarray(strata)
    if labels.shape != table.shape[1:]:
        raise ValueError(f"strata have shape {list(labels.shape)} for {table.shape[1]} items: give one an item")
    rows = {}
    for stratum in np.unique(labels):
        inside = labels == stratum
        part = table[0, inside] if len(table) == 1 else table[:, inside]
        members = None if groups is None else np.asarray(groups)[inside]
        if members is not None and len(np.unique(members)) == 1:
            rows[stratum] = vars(Interval(float(part.mean()), 0.0, 1.0, int(inside.sum())))
        else:
            rows[stratum] = vars(bootstrap_interval(part, seed=seed, groups=members))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("stratum")


def length_controlled_accuracy(
    correct: ArrayLike,
    length_difference: ArrayLike,
    *,
    seed: int,
    groups: ArrayLike | None = None,
    draws: int = 1000,
) -> Interval:
    """Accuracy that a logistic regression predicts for a pair whose two responses are equally long.

    Args:
        correct: 0 or 1, `[item]` or `[seed, item]`.
        length_difference: `[item]`, length of chosen minus rejected, in any unit, not all 0.
    Raises:
        ValueError: a value other than 0 and 1; differences of other items; differences that are all 0 or not finite.

    P(right) = sigmoid(a + b tanh(d / sd)), d the length difference and sd its root mean square, so that 0 stays 0;
    the answer is sigmoid(a). A model that only takes the longer response comes out at 1/2 (below, where responses of
    equal length make it tie). Source: the length term of AlpacaEval 2 (Dubois et al., arXiv 2404.04475), with "orders
    the pair rightly" in the place of "wins", and one weak L2 penalty in the place of its cross-validated one.
    """
    table = zero_or_one(correct)
    difference = np.asarray(length_difference, dtype=float)
    if difference.shape != table.shape[1:]:
        raise ValueError(f"length differences have shape {list(difference.shape)} for {table.shape[1]} items")
    size = np.sqrt(np.mean(difference**2))
    if not 0 < size < np.inf:
        raise ValueError("length differences must be finite and not all 0: otherwise there is no length to control for")
    covariate = np.tanh(difference / size)
    n = table.shape[1]
    once = Resamples(np.full((1, len(table)), 1 / len(table)), np.full((1, n), 1 / n))
    fitted = _logistic(table, covariate, once, np.zeros((1, 2)))
    drawn = Resamples.draw(table, seed=seed, groups=groups, draws=draws)
    redrawn = _logistic(table, covariate, drawn, np.repeat(fitted, draws, axis=0))
    return percentile_interval(float(expit(fitted[0, 0])), expit(redrawn[:, 0]), n)


def _logistic(
    correct: Float[np.ndarray, "seed item"],
    covariate: Float[np.ndarray, "item"],
    drawn: Resamples,
    start: Float[np.ndarray, "draw 2"],
) -> Float[np.ndarray, "draw 2"]:
    """Logistic regression of right (a share, over the drawn seeds) on the covariate: intercept and slope of each draw.

    Raises RuntimeError where Newton's method does not settle.
    """
    order = np.argsort(covariate, kind="stable")
    values, starts = np.unique(covariate[order], return_index=True)  # many pairs share a length difference
    items = np.add.reduceat(drawn.items[:, order], starts, axis=1)
    right = np.add.reduceat((drawn.items * (drawn.seeds @ correct))[:, order], starts, axis=1)
    design, ridge = np.stack([np.ones_like(values), values]), _RIDGE / correct.shape[1]
    outer = (design[:, None] * design[None]).reshape(4, -1)
    beta = start.copy()
    for _ in range(_STEPS):
        predicted = expit(beta @ design)
        slope = (right - items * predicted) @ design.T - ridge * beta
        curvature = (items * predicted * (1 - predicted)) @ outer.T
        curvature = curvature.reshape(-1, 2, 2) + ridge * np.eye(2)
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        beta += step * np.minimum(1, _LONGEST_STEP / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12))
        if np.abs(step).max() < 1e-6:
            break
    else:
        raise RuntimeError(f"the length regression did not settle in {_STEPS} steps; its last step is {step.max():.2g}")
    return beta
