"""Fit of the annotators to the published statistics, given the texts that the generator writes.

The same draws of chance serve every trial value (common random numbers), so that the misfit is a function of the
parameters alone and least squares by finite differences can follow it.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import least_squares

from rmlib.pairs.schema import ATTRIBUTES
from rmlib.records.progress import progress_bar
from rmlib.sources.simulated.annotators import HALO_CENTRE, HELPFULNESS, Noise, Parameters, Pool, annotate
from rmlib.sources.simulated.generation import as_array, draw_texts
from rmlib.sources.simulated.measures import FIRST, THEN, Labelled, measures, targets

N_PAIRS, SEED = 12_000, 1  # the seed differs from that of the embedded data, which stay a fresh sample
URGENCY = 3.0  # how much more a misfit of FIRST counts, in tolerances
STEP = 0.04  # of the finite differences, as a share of a parameter's range: ratings are whole numbers
MAX_TRIALS = 40  # steps of the optimiser, each with one evaluation for every parameter

# What is fitted, with its limits: five values an attribute, then single ones.
_LIMITS_BY_ATTRIBUTE = {"offset": (-4.0, 4.0), "gain": (0.35, 3.0), "halo": (-0.5, 1.0), "noise": (0.05, 2.0)}
_LIMITS = {
    "misread": (0.0, 0.3), "contested": (0.0, 0.8), "misread_contested": (0.1, 1.0), "vote_noise": (0.05, 2.0),
    "better": (0.1, 2.0), "much_better": (0.75, 2.0), "found": (0.0, 1.0),
}  # fmt: skip
_START = {
    "misread": 0.05, "contested": 0.3, "misread_contested": 0.5, "vote_noise": 0.5, "better": 0.8, "much_better": 1.0,
    "found": 0.6,
}  # fmt: skip
_START_HALO = {"correctness": 0.5}
_START_NOISE = 0.5


@dataclass(frozen=True)
class Fit:
    """The parameters found, and every statistic under them beside its target."""

    parameters: Parameters
    table: pd.DataFrame  # index: statistic; columns: published, fitted, difference, tolerance, within tolerance

    def __str__(self) -> str:
        return self.table.to_string(float_format="%.3f", na_rep="-")


@dataclass(frozen=True)
class Sample:
    """Truths from the text generator and the chance that befalls their annotation: all that a trial needs."""

    truths: Float[np.ndarray, "pair side attribute"]
    noise: Noise
    pool: Pool

    @classmethod
    def draw(cls, n_pairs: int, seed: int, *, show: bool = True) -> Self:
        """Texts are written once, and only to learn their truths."""
        texts = itertools.islice(draw_texts(seed), n_pairs)
        truths = as_array(list(progress_bar(texts, total=n_pairs, desc="texts", show=show)))
        rng = np.random.default_rng(seed)
        return cls(truths, Noise.draw(rng, n_pairs), Pool.draw(rng))

    def statistics(self, parameters: Parameters) -> dict[str, float]:
        """Every measure of the annotations that these parameters give."""
        labelled = Labelled.of(annotate(self.truths, self.noise, self.pool, parameters))
        return {measure.name: measure.estimate for measure in measures(labelled)}


def calibrate(n_pairs: int = N_PAIRS, seed: int = SEED, *, show: bool = True) -> Fit:
    """Draw texts and chance, and fit the annotators of these texts (`fit`); minutes, with a progress bar."""
    return fit(Sample.draw(n_pairs, seed, show=show), show=show)


def fit(sample: Sample, *, max_trials: int = MAX_TRIALS, show: bool = True) -> Fit:
    """The parameters with the least squared misfit, each misfit in units of its tolerance; FIRST counts for more."""
    low, high = _limits()
    bar = progress_bar(total=max_trials * (1 + len(low)), desc="fit", unit="trials", show=show)

    def residuals(vector: np.ndarray) -> np.ndarray:
        bar.update()
        return misfits(sample.statistics(_parameters(low + (high - low) * (vector - 1))))

    # Ranges become 1..2: steps are relative to the value, which must not be near 0.
    first = 1 + (_vector(_start(sample.truths, targets())) - low) / (high - low)
    found = least_squares(
        residuals, first.clip(1.01, 1.99), bounds=(1, 2), diff_step=STEP, ftol=1e-4, max_nfev=max_trials
    )
    bar.total = bar.n  # it stops when no step helps, mostly long before the last trial
    bar.close()
    parameters = _parameters(low + (high - low) * (found.x - 1))
    return Fit(parameters, against_targets(sample.statistics(parameters)))


def misfits(found: Mapping[str, float]) -> np.ndarray:
    """Difference to each published value in units of its tolerance, URGENCY times that for FIRST.

    A statistic without a value, because no pair is left to compute it from, counts as 100 tolerances off.
    """
    goals = targets()
    scale = {name: tolerance / URGENCY for name, tolerance in FIRST.items()} | THEN
    off = [(found[name] - goals[name]) / size for name, size in scale.items() if name in goals.index]
    return np.nan_to_num(off, nan=100.0)


def against_targets(found: Mapping[str, float]) -> pd.DataFrame:
    """Statistics beside their published values; the columns of `Fit.table`."""
    table = pd.DataFrame({"published": targets(), "fitted": pd.Series(found)}).reindex(list(found))
    table["difference"] = table["fitted"] - table["published"]
    table["tolerance"] = pd.Series(FIRST | THEN)
    table["within tolerance"] = (table["difference"].abs() <= table["tolerance"]).where(table["published"].notna())
    return table


def _start(truths: np.ndarray, goals: pd.Series) -> Parameters:
    """Scales that give the truths the published means and deviations, and guesses for the rest."""
    mean, sd = truths.mean(axis=(0, 1)), truths.std(axis=(0, 1))
    halo = np.array([_START_HALO.get(name, 0.0) for name in ATTRIBUTES])
    goal_mean, goal_sd = (np.array([goals[f"{name}: {what}"] for name in ATTRIBUTES]) for what in ("mean", "sd"))
    gain = (1 - halo) * goal_sd / np.maximum(sd, 0.1)
    offset = goal_mean - gain * mean - halo * (goal_mean[HELPFULNESS] - HALO_CENTRE)
    return Parameters.of(
        {"offset": offset, "gain": gain, "halo": halo, "noise": np.full(len(halo), _START_NOISE)} | _START
    )


def _limits() -> tuple[np.ndarray, np.ndarray]:
    both = []
    for end in (0, 1):
        wide = {name: np.full(len(ATTRIBUTES), limits[end]) for name, limits in _LIMITS_BY_ATTRIBUTE.items()}
        both.append(_vector(Parameters.of(wide | {name: limits[end] for name, limits in _LIMITS.items()})))
    return both[0], both[1]


def _vector(parameters: Parameters) -> np.ndarray:
    """What is fitted, in one row; the halo of helpfulness on itself is none, and left out."""
    values = {name: np.array(getattr(parameters, name)) for name in (*_LIMITS_BY_ATTRIBUTE, *_LIMITS)}
    values["halo"] = np.delete(values["halo"], HELPFULNESS)
    return np.hstack(list(values.values()))


def _parameters(vector: np.ndarray) -> Parameters:
    """The inverse of `_vector`."""
    k = len(ATTRIBUTES)
    offset, gain, halo, noise, single = np.split(vector, np.cumsum([k, k, k - 1, k]))
    wide = {"offset": offset, "gain": gain, "halo": np.insert(halo, HELPFULNESS, 0.0), "noise": noise}
    return Parameters.of(wide | dict(zip(_LIMITS, single, strict=True)))
