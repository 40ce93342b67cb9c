"""How error falls with data: a power law with a floor, and what the data can and cannot say about it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from rmlib.statistics.intervals import Interval, Resamples, finite, percentile_interval, zero_or_one

FEWEST_SIZES = 4  # one more than the law has parameters
EXPONENTS = (0.01, 3.0)  # looked at; beyond, the law is a step or a straight line in log n
_GRID = 120


@dataclass(frozen=True)
class PowerLaw:
    """error = scale * (n / smallest)^-exponent + floor, n training pairs, with bootstrap intervals.

    `scale` is the error above the floor at the smallest size. `draws` are the bootstrap's laws: scale, exponent, floor.
    """

    scale: Interval
    exponent: Interval
    floor: Interval
    smallest: float
    draws: Float[np.ndarray, "draw 3"] = field(repr=False)

    @property
    def floor_is_shown(self) -> bool:
        """Whether the data show that error stops above 0; if not, laws with and without a floor fit them."""
        return self.floor.low > 0

    @property
    def fall_is_shown(self) -> bool:
        """Whether the data show that error falls with size at all; if not, the exponent means nothing."""
        return self.scale.low > 0

    def curve(self, sizes: ArrayLike) -> pd.DataFrame:
        """The law at some sizes: columns size, estimate, low, high (95 %, pointwise), as shares of pairs."""
        at = np.asarray(sizes, dtype=float)
        law = np.array([[self.scale.estimate, self.exponent.estimate, self.floor.estimate]])
        drawn = _predict(self.draws, at / self.smallest)
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        estimate = _predict(law, at / self.smallest)[0]
        return pd.DataFrame({"size": at, "estimate": estimate, "low": low, "high": high})

    def __str__(self) -> str:
        if not self.fall_is_shown:
            return "error does not fall with size beyond chance"
        floor = f"floor {self.floor.estimate:.2f} [{self.floor.low:.2f}, {self.floor.high:.2f}]"
        floor = floor if self.floor_is_shown else "no floor shown"
        exponent = self.exponent
        return f"exponent {exponent.estimate:.2f} [{exponent.low:.2f}, {exponent.high:.2f}], {floor}"


def fit_power_law(
    sizes: Sequence[int], correct: ArrayLike, *, seed: int, groups: ArrayLike | None = None, draws: int = 1000
) -> PowerLaw:
    """Least-squares power law of error over training size, with a bootstrap over seeds and test items.

    Args:
        sizes: training pairs, at least four different ones, ascending.
        correct: `[size, seed, item]` of 0 and 1: the same seeds and test items at each size.
    Raises:
        ValueError: too few sizes, or not ascending; fewer than two seeds; shapes that do not fit; other values.

    Form as in Kaplan et al. (arXiv 2001.08361) with a floor as in Hestness et al. (arXiv 1712.00409). Scale and floor
    are kept from below 0, so intervals that touch 0 there end at it. Five sizes seldom tell a floor from a slow fall:
    see `floor_is_shown` before a curve is read beyond the largest size.
    """
    table, at = finite(correct, "correct"), np.asarray(sizes, dtype=float)
    if len(at) < FEWEST_SIZES or not (np.diff(at) > 0).all() or at[0] <= 0:
        raise ValueError(f"sizes must be {FEWEST_SIZES} or more, ascending, got {list(sizes)}")
    if table.ndim != 3 or len(table) != len(at):
        raise ValueError(f"correct must be [size, seed, item] with {len(at)} sizes, got shape {list(table.shape)}")
    for part in table:
        zero_or_one(part)
    drawn = Resamples.draw(table, seed=seed, groups=groups, draws=draws)
    errors = np.stack([1 - drawn.means(part) for part in table], axis=1)
    laws = _fit(at / at[0], errors)
    law = _refined(at / at[0], 1 - table.mean(axis=(1, 2)))
    scale, exponent, floor = (percentile_interval(value, laws[:, i], table.shape[2]) for i, value in enumerate(law))
    return PowerLaw(scale, exponent, floor, float(at[0]), laws)


def _predict(laws: Float[np.ndarray, "draw 3"], ratio: Float[np.ndarray, "size"]) -> Float[np.ndarray, "draw size"]:
    return laws[:, :1] * ratio ** -laws[:, 1:2] + laws[:, 2:]


def _fit(ratio: Float[np.ndarray, "size"], errors: Float[np.ndarray, "draw size"]) -> Float[np.ndarray, "draw 3"]:
    """The best law of each row over a grid of exponents: given one, scale and floor are a straight line's."""
    exponents = np.geomspace(*EXPONENTS, _GRID)
    fitted = [_line(ratio**-exponent, errors) for exponent in exponents]
    best = np.argmin([residual for _, _, residual in fitted], axis=0)
    rows = np.arange(len(errors))
    scale, floor = (np.array([part[i] for part in fitted])[best, rows] for i in (0, 1))
    return np.stack([scale, exponents[best], floor], axis=1)


def _refined(ratio: Float[np.ndarray, "size"], errors: Float[np.ndarray, "size"]) -> tuple[float, float, float]:
    """The best law of one row, its exponent sought between the neighbours of the grid's best."""
    exponents = np.geomspace(*EXPONENTS, _GRID)
    best = int(np.argmin(np.abs(exponents - _fit(ratio, errors[None])[0, 1])))
    bounds = exponents[max(0, best - 1)], exponents[min(_GRID - 1, best + 1)]
    found = minimize_scalar(lambda exponent: _line(ratio**-exponent, errors[None])[2][0], bounds=bounds)
    scale, floor, _ = _line(ratio**-found.x, errors[None])
    return float(scale[0]), float(found.x), float(floor[0])


def _line(
    x: Float[np.ndarray, "size"], errors: Float[np.ndarray, "draw size"]
) -> tuple[Float[np.ndarray, "draw"], Float[np.ndarray, "draw"], Float[np.ndarray, "draw"]]:
    """Least squares of scale * x + floor, neither below 0: scale, floor and sum of squares of each row."""
    centred, mean = x - x.mean(), errors.mean(axis=1)
    scale = errors @ centred / (centred @ centred)
    floor = mean - scale * x.mean()
    below, rising = floor < 0, scale < 0
    scale = np.where(rising, 0.0, np.where(below, errors @ x / (x @ x), scale))
    floor = np.where(rising, mean, np.where(below, 0.0, floor))
    return scale, floor, ((scale[:, None] * x + floor[:, None] - errors) ** 2).sum(axis=1)
