"""Simulated annotators: they see the truth through bias and noise, and rate and compare like the published ones."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rmlib.schema import ATTRIBUTES
from rmlib.sources.simulated import phrases

# Rating points; chosen with `describe` to come near the published statistics.
LENIENCY_SD = 0.25  # of an annotator, the same for all attributes
NOISE_SD = {"helpfulness": 0.6, "correctness": 0.6, "coherence": 0.45, "complexity": 0.45, "verbosity": 0.45}
HALO = {"coherence": 0.12, "complexity": 0.10, "verbosity": 0.08}  # a helpful response seems better in all else too
HALO_CENTRE = 2.7
COMPARISON_SD = 0.6  # of a vote, on top of how helpful each response seemed
LAPSE = 0.04  # probability of rating and voting without reading
RECENCY = 0.05  # points of helpfulness in favour of response 2, read last
N_FIRST, N_MOST, TOLERATED_SPAN = 3, 5, 2  # published protocol: HelpSteer2 (arXiv 2406.08673) and -Preference
POOL = 40

_DEGREE = {1: "slightly better", 2: "better", 3: "much better"}
_REASONS = {
    "correctness": ("It [gets|has] more of what was asked.", "The other [leaves out|mistakes] what was asked."),
    "coherence": ("It [reads|flows] better.", "The other is [garbled|hard to follow]."),
    "verbosity": ("Its length [suits|fits] the request.", "The other is [not the right length|of the wrong length]."),
    "helpfulness": ("It [does|follows] what was asked more closely.", "It is [more useful|of more use] to the user."),
}


@dataclass(frozen=True)
class Annotator:
    """One of the pool: leniency in rating points, and a factor on all noise (below 1: more competent)."""

    name: str
    leniency: float
    noise: float


def draw_pool(rng: random.Random) -> list[Annotator]:
    """The annotators who share the work."""
    return [Annotator(f"a{n:02d}", rng.gauss(0, LENIENCY_SD), rng.uniform(0.6, 1.4)) for n in range(POOL)]


def annotate(rng: random.Random, pool: Sequence[Annotator], truths: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Three annotations of a pair; five where the first three rate a response's helpfulness more than 2 apart."""
    team = rng.sample(pool, N_MOST)
    annotations = [_annotation(rng, annotator, truths) for annotator in team[:N_FIRST]]
    for side in ("ratings_1", "ratings_2"):
        seen = [annotation[side]["helpfulness"] for annotation in annotations]
        if max(seen) - min(seen) > TOLERATED_SPAN:
            return annotations + [_annotation(rng, annotator, truths) for annotator in team[N_FIRST:]]
    return annotations


def three_most_similar(values: Sequence[float]) -> tuple[int, int, int]:
    """Positions of the three closest values: smallest range, then variance, then mean nearest to that of all."""
    overall = sum(values) / len(values)

    def spread(positions: tuple[int, ...]) -> tuple[float, float, float]:
        chosen = [values[position] for position in positions]
        mean = sum(chosen) / 3
        return max(chosen) - min(chosen), sum((value - mean) ** 2 for value in chosen), abs(mean - overall)

    return min(itertools.combinations(range(len(values)), 3), key=spread) if len(values) > 3 else (0, 1, 2)


def ratings(annotations: Sequence[dict[str, Any]], side: str) -> dict[str, float]:
    """Ratings of one response: mean of the three annotations most alike in helpfulness, rounded."""
    kept = three_most_similar([annotation[side]["helpfulness"] for annotation in annotations])
    return {name: float(round(sum(annotations[i][side][name] for i in kept) / 3)) for name in ATTRIBUTES}


def preference(annotations: Sequence[dict[str, Any]]) -> int | None:
    """Mean of the three most similar votes, rounded; None where they are more than 2 apart."""
    votes = [annotation["preference"] for annotation in annotations]
    kept = [votes[i] for i in three_most_similar(votes)]
    return round(sum(kept) / 3) if max(kept) - min(kept) <= TOLERATED_SPAN else None


def _annotation(rng: random.Random, annotator: Annotator, truths: Sequence[dict[str, float]]) -> dict[str, Any]:
    seen = [_seen(rng, annotator, truth) for truth in truths]
    if rng.random() < LAPSE:
        seen = [{name: rng.uniform(0, 4) for name in ATTRIBUTES} for _ in truths]
    vote = _vote(seen[1]["helpfulness"] - seen[0]["helpfulness"] + RECENCY + rng.gauss(0, COMPARISON_SD))
    gaps = {name: (seen[1][name] - seen[0][name]) * (1 if vote > 0 else -1) for name in _REASONS}
    better = 2 if vote > 0 else 1
    statement = f"@Response {better} is {_DEGREE[abs(vote)]} than @Response {3 - better}."
    elaboration = phrases.fill(rng, _REASONS[max(gaps, key=lambda name: gaps[name])])
    return {
        "annotator": annotator.name,
        "preference": vote,
        "statement": statement,
        "elaboration": elaboration,
        "justification": f"{elaboration} {statement}",
        "ratings_1": _rounded(seen[0]),
        "ratings_2": _rounded(seen[1]),
    }


def _seen(rng: random.Random, annotator: Annotator, truth: dict[str, float]) -> dict[str, float]:
    """The attributes as they seem to the annotator, not rounded."""
    helpfulness = truth["helpfulness"] - HALO_CENTRE
    return {
        name: value
        + annotator.leniency
        + HALO.get(name, 0.0) * helpfulness
        + rng.gauss(0, NOISE_SD[name] * annotator.noise)
        for name, value in truth.items()
    }


def _vote(difference: float) -> int:
    """A vote of -3..3 without 0, which annotators could not give: sign and size of the difference in helpfulness."""
    size = max(1, min(3, round(abs(difference))))
    return size if difference > 0 else -size


def _rounded(seen: dict[str, float]) -> dict[str, float]:
    return {name: float(max(0, min(4, round(value)))) for name, value in seen.items()}
