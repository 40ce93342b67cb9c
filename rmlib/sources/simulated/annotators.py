"""Simulated annotators: they see the truth through bias and noise, and rate and compare under the published protocol.

Everything is an array over a block of pairs, so that a fit to the published statistics runs the code that generates
the data. Attributes are in the order of `rmlib.pairs.schema.ATTRIBUTES`; the values of `Parameters` are fitted
(`tools.simulated_data`), those in capitals here are stated.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int

from rmlib.annotations import kept_positions
from rmlib.pairs.schema import ATTRIBUTES, NEITHER_VALID

PARAMETERS_FILE = Path(__file__).with_name("parameters.json")
N_FIRST, N_MOST, TOLERATED_SPAN = 3, 5, 2  # published protocol: HelpSteer2 (arXiv 2406.08673) and -Preference
# What one response is worth, in rating points: a preference carries more than two ratings of helpfulness.
UTILITY = {"helpfulness": 1.0, "coherence": 0.2, "verbosity": 0.1}
# An annotator's traits are evenly spaced, in random order, over these ranges.
POOL = 40
LENIENCY = (-0.3, 0.3)  # rating points added to everything
NOISINESS = (0.6, 1.4)  # factor on all noise
CARELESSNESS = (0.4, 1.6)  # factor on the probability of misreading a response
RECENCY = 0.05  # points of utility in favour of response 2, read last
HALO_CENTRE = 2.0  # seeming helpfulness at which the other attributes get no halo
NEITHER_SHARE = 0.3  # of votes on two responses that both seem useless: "neither is valid"

HELPFULNESS, CORRECTNESS = ATTRIBUTES.index("helpfulness"), ATTRIBUTES.index("correctness")
_WEIGHTS = tuple((ATTRIBUTES.index(name), weight) for name, weight in UTILITY.items())


@dataclass(frozen=True)
class Parameters:
    """How annotators see and use the scales; five values an attribute, the rest numbers. Rating points if not said."""

    offset: tuple[float, ...]  # of the scale of each attribute
    gain: tuple[float, ...]  # rating points per point of truth
    halo: tuple[float, ...]  # points per point that the response seems more helpful; 0 for helpfulness itself
    noise: tuple[float, ...]  # standard deviation
    misread: float  # probability that a response is misread: then what is seen has nothing to do with what is there
    contested: float  # share of the pairs that are easily misread
    misread_contested: float  # probability of misreading a response of such a pair
    vote_noise: float  # standard deviation, points of utility
    better: float  # difference in utility from which a response is "better", not "slightly better"
    much_better: float  # further difference from which it is "much better"
    found: float  # probability that a further annotator who is asked for can be had

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """From lists or arrays and numbers, to four decimals, so that what is written is what was tried."""
        fields: dict[str, Any] = {name: np.round(value, 4).tolist() for name, value in values.items()}
        fields |= {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return cls(**fields)

    @classmethod
    def load(cls, path: Path = PARAMETERS_FILE) -> Self:
        """The fitted values."""
        return cls.of(json.loads(path.read_text()))

    def save(self, path: Path = PARAMETERS_FILE) -> None:
        """Write the values as `load` reads them."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


@cache
def fitted() -> Parameters:
    """The committed values."""
    return Parameters.load()


@dataclass(frozen=True)
class Pool:
    """The annotators who share the work: one value each."""

    leniency: Float[np.ndarray, "pool"]
    noisiness: Float[np.ndarray, "pool"]
    carelessness: Float[np.ndarray, "pool"]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Self:
        """Traits that are independent of each other; their distribution is the same for every seed."""
        return cls(*(rng.permutation(np.linspace(*limits, POOL)) for limits in (LENIENCY, NOISINESS, CARELESSNESS)))


@dataclass(frozen=True)
class Noise:
    """All chance of a block: who is called, and what befalls them. Axes: pair, annotator (5), side (2), attribute."""

    team: Int[np.ndarray, "pair annotator"]
    found: Float[np.ndarray, "pair annotator"]  # uniform, as the next four
    contested: Float[np.ndarray, "pair"]
    misread: Float[np.ndarray, "pair annotator side"]
    imagined: Float[np.ndarray, "pair annotator side attribute"]
    neither: Float[np.ndarray, "pair annotator"]
    vote: Float[np.ndarray, "pair annotator"]  # standard normal, as the last
    rating: Float[np.ndarray, "pair annotator side attribute"]

    @classmethod
    def draw(cls, rng: np.random.Generator, n_pairs: int) -> Self:
        """Of `n_pairs` pairs."""
        shape = (n_pairs, N_MOST)
        return cls(
            team=np.argsort(rng.random((n_pairs, POOL)), axis=1, kind="stable")[:, :N_MOST],
            found=rng.random(shape),
            contested=rng.random(n_pairs),
            misread=rng.random((*shape, 2)),
            imagined=rng.random((*shape, 2, len(ATTRIBUTES))),
            neither=rng.random(shape),
            vote=rng.standard_normal(shape),
            rating=rng.standard_normal((*shape, 2, len(ATTRIBUTES))),
        )

    def first(self, n_pairs: int) -> "Noise":
        """That of the first `n_pairs` pairs."""
        return Noise(**{name: values[:n_pairs] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Given:
    """Annotations of many pairs, up to five each; entries where `called` is False mean nothing."""

    called: Bool[np.ndarray, "pair annotator"]
    votes: Int[np.ndarray, "pair annotator"]  # -3..3 without 0, or -100 (neither response is valid)
    ratings: Int[np.ndarray, "pair annotator side attribute"]


@dataclass(frozen=True)
class Annotated(Given):
    """With who gave them, and what they are readings of."""

    team: Int[np.ndarray, "pair annotator"]
    seeming: Float[np.ndarray, "pair annotator side attribute"]  # before rounding; explains the votes
    misread: Bool[np.ndarray, "pair annotator side"]


def annotate(
    truths: Float[np.ndarray, "pair side attribute"], noise: Noise, pool: Pool, parameters: Parameters
) -> Annotated:
    """Three annotations of each pair; up to five where the first three differ by more than 2 in helpfulness."""
    misread = _misread(noise, pool, parameters)
    seeming = _seeming(truths, misread, noise, pool, parameters)
    ratings = np.clip(np.floor(seeming + 0.5), 0, 4).astype(int)
    votes = _votes(seeming, ratings, noise, pool, parameters)
    called = _called(ratings[..., HELPFULNESS], noise.found < parameters.found)
    return Annotated(called, votes, ratings, noise.team, seeming, misread)


def utility(attributes: Float[np.ndarray, "*pair attribute"]) -> Float[np.ndarray, "*pair"]:
    """What responses with these attributes are worth, in points (UTILITY)."""
    return sum((weight * attributes[..., index] for index, weight in _WEIGHTS), np.zeros(attributes.shape[:-1]))


def true_preference(truths: Float[np.ndarray, "pair side attribute"]) -> Float[np.ndarray, "pair"]:
    """Utility of response 2 minus utility of response 1, to 4 decimals: what votes are noisy readings of."""
    return np.round(utility(truths[:, 1]) - utility(truths[:, 0]), 4)


def _misread(noise: Noise, pool: Pool, parameters: Parameters) -> Bool[np.ndarray, "pair annotator side"]:
    contested = noise.contested < parameters.contested
    rate = np.where(contested, parameters.misread_contested, parameters.misread)[:, None]
    return noise.misread < (rate * pool.carelessness[noise.team])[..., None]


def _seeming(
    truths: np.ndarray, misread: np.ndarray, noise: Noise, pool: Pool, parameters: Parameters
) -> Float[np.ndarray, "pair annotator side attribute"]:
    """The attributes as they seem to each annotator: scale, halo, leniency, noise."""
    imagined = 4 * noise.imagined
    imagined[..., CORRECTNESS] = imagined[..., HELPFULNESS]  # one mistaken idea of both
    read = np.where(misread[..., None], imagined, truths[:, None])
    error = noise.rating * np.array(parameters.noise) * pool.noisiness[noise.team][..., None, None]
    seeming = np.array(parameters.offset) + np.array(parameters.gain) * read + error
    seeming += pool.leniency[noise.team][..., None, None]
    halo = seeming[..., HELPFULNESS, None] - HALO_CENTRE
    return seeming + np.array(parameters.halo) * halo


def _votes(
    seeming: np.ndarray, ratings: np.ndarray, noise: Noise, pool: Pool, parameters: Parameters
) -> Int[np.ndarray, "pair annotator"]:
    worth = utility(seeming)
    difference = worth[..., 1] - worth[..., 0] + RECENCY
    difference += parameters.vote_noise * noise.vote * pool.noisiness[noise.team]
    size = np.abs(difference)
    strength = 1 + (size > parameters.better) + (size > parameters.better + parameters.much_better)
    useless = (ratings[..., HELPFULNESS] == 0).all(axis=-1) & (noise.neither < NEITHER_SHARE)
    return np.where(useless, NEITHER_VALID, np.where(difference > 0, strength, -strength))


def _called(
    helpfulness: Int[np.ndarray, "pair annotator side"], found: Bool[np.ndarray, "pair annotator"]
) -> Bool[np.ndarray, "pair annotator"]:
    """Who annotates: the first three, and of the others who can be had, where these differ too much on a response."""
    span = np.ptp(helpfulness[:, :N_FIRST], axis=1).max(axis=1)
    called = found & (span > TOLERATED_SPAN)[:, None]
    called[:, :N_FIRST] = True
    return called


# --- labels, by the rules of rmlib.annotations ---


def three_most_similar(
    values: Int[np.ndarray, "pair annotator"], valid: Bool[np.ndarray, "pair annotator"]
) -> Int[np.ndarray, "pair 3"]:
    """`annotations.kept_positions` of the valid values of each pair; of no use where fewer than three are valid."""
    different, of_pair = np.unique(np.where(valid, values, NEITHER_VALID), axis=0, return_inverse=True)  # few are
    kept = [kept_positions(row) for row in different.tolist()]
    return np.array([positions if len(positions) == 3 else (0, 1, 2) for positions in kept])[of_pair]


def kept_votes(given: Given) -> tuple[Int[np.ndarray, "pair 3"], Bool[np.ndarray, "pair"]]:
    """The three most similar votes, and whether they give a preference: three valid, at most 2 apart."""
    valid = given.called & (given.votes != NEITHER_VALID)
    votes = np.take_along_axis(given.votes, three_most_similar(given.votes, valid), axis=1)
    return votes, (valid.sum(axis=1) >= 3) & (np.ptp(votes, axis=1) <= TOLERATED_SPAN)


def kept_ratings(given: Given) -> tuple[Int[np.ndarray, "pair 3 side attribute"], Bool[np.ndarray, "pair"]]:
    """Ratings by the three annotators most alike in helpfulness, side by side; whether both spans are at most 2."""
    sides = []
    for side in (0, 1):
        kept = three_most_similar(given.ratings[:, :, side, HELPFULNESS], given.called)
        sides.append(np.take_along_axis(given.ratings[:, :, side], kept[..., None], axis=1))
    ratings = np.stack(sides, axis=2)
    return ratings, np.ptp(ratings[..., HELPFULNESS], axis=1).max(axis=1) <= TOLERATED_SPAN


def overall_preferences(given: Given) -> Float[np.ndarray, "pair"]:
    """Mean of the three most similar votes, rounded; NaN where they give no preference."""
    votes, kept = kept_votes(given)
    return np.where(kept, _rounded_mean(votes), np.nan)


def overall_ratings(given: Given) -> Float[np.ndarray, "pair side attribute"]:
    """Mean of the three ratings kept, rounded; NaN for both responses where helpfulness spans more than 2 for one."""
    values, kept = kept_ratings(given)
    return np.where(kept[:, None, None], _rounded_mean(values), np.nan)


def _rounded_mean(three: Int[np.ndarray, "pair 3 ..."]) -> Int[np.ndarray, "pair ..."]:
    """Thirds have no halves, so rounding is never a tie."""
    return (2 * three.sum(axis=1) + 3) // 6
