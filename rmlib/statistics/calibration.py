"""Is the margin a probability? Reliability, calibration error, Brier score, temperature."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit

from rmlib.statistics.intervals import Interval, Resamples, finite, percentile_interval, seed_by_item

# Inverse temperatures at which the bootstrap draws are looked at, in units of the mean size of a margin.
_INVERSE_RANGE, _INVERSE_STEPS = (1e-3, 1e3), 200


def calibration_table(margin: ArrayLike, *, bins: int = 10) -> pd.DataFrame:
    """How often a model is right when it is so sure: one row per filled bin, columns confidence, accuracy, n.

    Margins are in logits. A pair has no natural side, so confidence is the probability sigmoid(|margin|), 0.5..1, of
    the response that the model favours; a tie is half right. Bins are of equal width. Raises ValueError for no pair or
    a NaN.
    """
    margins = finite(margin, "margin")
    confidence = expit(np.abs(margins))
    which = np.minimum((confidence - 0.5) * 2 * bins, bins - 1).astype(int)
    pairs = pd.DataFrame({"bin": which, "confidence": confidence, "accuracy": (np.sign(margins) + 1) / 2, "n": 1})
    return pairs.groupby("bin").agg({"confidence": "mean", "accuracy": "mean", "n": "sum"}).reset_index(drop=True)


def expected_calibration_error(margin: ArrayLike, *, bins: int = 10) -> float:
    """Mean distance of accuracy and confidence over the bins of `calibration_table`, 0..1 (Guo et al., 2017)."""
    table = calibration_table(margin, bins=bins)
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["n"]))


def brier(margin: ArrayLike) -> float:
    """Mean squared error, 0..1, of sigmoid(margin) as the probability that the chosen response wins (Brier, 1950)."""
    return float(np.mean(squared_errors(margin)))


def squared_errors(margin: ArrayLike) -> Float[np.ndarray, "..."]:
    """What `brier` is the mean of, pair by pair."""
    return expit(-finite(margin, "margin")) ** 2


@dataclass(frozen=True)
class Temperature(Interval):
    """What margins are divided by to become logits, fitted by likelihood; above 1 the model was too sure.

    Infinite where the margins are not on the side of the preferences at all: then sigmoid(margin / T) is 1/2. Zero
    where every pair is ordered rightly: no margin is too sure. `n` is the number of pairs fitted on.
    """

    def apply(self, margin: ArrayLike) -> Float[np.ndarray, "..."]:
        """Margins in logits: 0 for an infinite temperature. Raises ValueError for a temperature of 0."""
        if self.estimate == 0:
            raise ValueError("a temperature of 0 makes every margin infinite; fit on more pairs, some ordered wrongly")
        return np.asarray(margin, dtype=float) / self.estimate


def fit_temperature(margin: ArrayLike, *, seed: int, groups: ArrayLike | None = None, draws: int = 1000) -> Temperature:
    """The temperature with the greatest likelihood of sigmoid(margin / T), and its bootstrap interval.

    Args:
        margin: reward of chosen minus rejected, `[item]` or `[seed, item]`; all seeds share one temperature. Of pairs
            that are neither trained nor tested on.
    Raises:
        ValueError: margins that are all 0.

    The likelihood is log-concave in 1/T, so its slope has one root at most. Source: temperature scaling (Guo et al.,
    2017), for two classes.
    """
    margins = seed_by_item(margin, "margin")
    if not margins.any():
        raise ValueError("all margins are 0: no temperature makes a difference; was the model trained?")
    inverse = np.concatenate([[0], np.geomspace(*_INVERSE_RANGE, _INVERSE_STEPS)]) / np.abs(margins).mean()
    slopes = np.array([_slope(factor, margins) for factor in inverse])
    drawn = Resamples.draw(margins, seed=seed, groups=groups, draws=draws)
    redrawn = np.stack([drawn.means(slope) for slope in slopes], axis=1)
    estimates = np.array([_root(inverse, row) for row in redrawn])
    temperature = _root(inverse, slopes.mean(axis=(1, 2)))
    if 0 < temperature < np.inf:  # the grid is for the draws; the estimate itself is exact
        after = np.searchsorted(inverse, 1 / temperature)
        temperature = 1 / brentq(lambda factor: _slope(factor, margins).mean(), *inverse[[after - 1, after]])
    return Temperature(**vars(percentile_interval(float(temperature), estimates, margins.shape[1])))


def _slope(inverse: float, margins: Float[np.ndarray, "seed item"]) -> Float[np.ndarray, "seed item"]:
    """Slope of the log-likelihood of sigmoid(inverse * margin) in the inverse temperature."""
    return margins * expit(-inverse * margins)


def _root(inverse: Float[np.ndarray, "grid"], slope: Float[np.ndarray, "grid"]) -> float:
    """The temperature at which a falling slope of the likelihood crosses 0, between the points of a grid."""
    if slope[0] <= 0:
        return np.inf
    if slope[-1] > 0:
        return 0.0
    return 1 / float(np.interp(0, -slope, inverse))
