"""From several annotations to one label: the pipelines of the two papers, step by step, and weighted kappa.

Preferences: HelpSteer2-Preference (arXiv 2410.01257, section 2). Ratings: HelpSteer2 (arXiv 2406.08673).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from jaxtyping import Float

from rmlib.pairs.schema import ATTRIBUTES, NEITHER_VALID

SIDES = ("ratings_1", "ratings_2")
VOTE_PRIOR = 0.5  # votes added to each response: Jeffreys' prior, under which three of three votes are 0.875, not 1
N_KEPT, TOLERATED_SPAN = 3, 2  # how many annotations make a label, and how far apart they may lie

Value = int | float | None
Ratings = dict[str, float | None]
Label = TypeVar("Label")

SPAN_STEP = f"span at most {TOLERATED_SPAN}"
PREFERENCE_STEPS = (
    "annotations with a preference", f"{NEITHER_VALID} discarded", "three most similar", SPAN_STEP, "zeros left out",
)  # fmt: skip
RATING_STEPS = ("annotations with ratings", "three most alike in helpfulness", SPAN_STEP)


@dataclass(frozen=True)
class Steps(Generic[Label]):
    """What a pipeline did with each pair (keys: pair ids): its label, and how far it came."""

    steps: Sequence[str]  # in order
    labels: Mapping[str, Label | None]  # None where the pipeline gives none; a 0 that is left out still shows here
    survived: Mapping[str, Sequence[int]]  # annotations left after each step that the pair survived

    def table(self) -> pd.DataFrame:
        """One row a step: pairs in, dropped and left, and the annotations behind the pairs that are left."""
        rows, before = {}, len(self.survived)
        for number, step in enumerate(self.steps):
            counts = [survived[number] for survived in self.survived.values() if len(survived) > number]
            dropped = before - len(counts)
            rows[step] = {"pairs in": before, "dropped": dropped, "left": len(counts), "annotations left": sum(counts)}
            before = len(counts)
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("step")


def kept_positions(values: Sequence[Value]) -> tuple[int, ...]:
    """Positions, ascending, of the three most similar values; of all valid ones where there are fewer than three.

    -100 and None are not valid. Among all choices of three: smallest range, then smallest variance, then mean nearest
    to the mean of all valid values, then the earliest positions. Sums are exact, so that no rounding error decides a
    tie. Raises ValueError for a value that is not finite.
    """
    return _kept_positions(tuple(values))


def three_most_similar(values: Sequence[Value]) -> list[Any]:
    """The values at `kept_positions`, in the order given."""
    return [values[position] for position in kept_positions(values)]


def overall_preference(values: Sequence[Value]) -> int | None:
    """Mean of the three most similar preferences, rounded (thirds alone occur, never halves).

    None where fewer than three are valid or where the three span more than 2. 0 is returned as it is: leaving it out
    is a step of its own (`preference_steps`).
    """
    kept = three_most_similar(values)
    if len(kept) < N_KEPT or max(kept) - min(kept) > TOLERATED_SPAN:
        return None
    return round(_mean(kept))


def overall_ratings(annotations: Sequence[Mapping[str, Any]], side: str) -> Ratings | None:
    """Ratings (0-4) of one response: the three annotations most alike in helpfulness, their mean, rounded.

    Args:
        annotations: with the fields of the schema; those that do not rate the helpfulness of this side are ignored.
        side: "ratings_1" or "ratings_2".

    None where nobody rated it, or where the retained helpfulness ratings span more than 2. Where only two are at hand,
    as for a small share of the released disagreements, halves occur: they round to even. An attribute that none of
    the retained annotations rates is None.
    """
    kept = _retained(annotations, side)
    helpfulness = [ratings["helpfulness"] for ratings in kept]
    if not kept or max(helpfulness) - min(helpfulness) > TOLERATED_SPAN:
        return None
    given = {name: [r[name] for r in kept if r.get(name) is not None] for name in ATTRIBUTES}
    return {name: float(round(_mean(values))) if values else None for name, values in given.items()}


def preference_steps(pairs: Dataset) -> Steps[int]:
    """The paper's pipeline on the preferences of `annotations`; labels are what `overall_preference` gives."""
    votes = dict(zip(pairs["pair_id"][:], preference_items(pairs), strict=True))
    labels = {pair: overall_preference(values) for pair, values in votes.items()}
    survived = {pair: _preference_counts(values, labels[pair]) for pair, values in votes.items()}
    return Steps(PREFERENCE_STEPS, labels, survived)


@lru_cache(maxsize=4)  # seconds, and asked for again with the same table
def rating_steps(pairs: Dataset) -> Steps[tuple[Ratings, Ratings]]:
    """The parent's pipeline on the ratings of `annotations`; a label holds the ratings of response 1 and response 2.

    A pair is dropped where either response is; then its label is None. Annotations are counted once a response.
    """
    labels: dict[str, tuple[Ratings, Ratings] | None] = {}
    survived = {}
    for pair in pairs.select_columns(["pair_id", "annotations"]).to_list():
        annotations = pair["annotations"] or []
        first, second = (overall_ratings(annotations, side) for side in SIDES)
        labels[pair["pair_id"]] = None if first is None or second is None else (first, second)
        rated = [len(_rated(annotations, side)) for side in SIDES]
        kept = sum(len(_retained(annotations, side)) for side in SIDES)
        outcomes = [(sum(rated), all(rated)), (kept, True), (kept, labels[pair["pair_id"]] is not None)]
        survived[pair["pair_id"]] = _until_dropped(outcomes)
    return Steps(RATING_STEPS, labels, survived)


def weighted_kappa(items: Iterable[Sequence[Value]], weights: Literal["quadratic", "linear"] = "quadratic") -> float:
    """Cohen's weighted kappa over all pairs of annotations of an item, each pair in both orders.

    Args:
        items: the labels of each item, from any number of annotators. None and -100 are no labels; an item with fewer
            than two labels is ignored, one with many counts once for each of its pairs.
        weights: the cost of a disagreement is its distance in rank, or the square of it. The rank is that of the label
            among the labels that occur, as in scikit-learn, with which published kappas were computed: for votes of
            -3..3 without 0 the step from -1 to 1 is one, not two.
    Returns:
        Kappa; NaN where only one label occurs, for which it is not defined.
    Raises:
        ValueError: unknown weights, or no item with two labels.
    """
    if weights not in ("quadratic", "linear"):
        raise ValueError(f"unknown weights {weights!r}; use 'quadratic' or 'linear'")
    _, counts = label_counts(items)
    return float(kappa_of_coincidences(counts.T @ counts - np.diag(counts.sum(axis=0)), weights))


def label_counts(items: Iterable[Sequence[Value]]) -> tuple[np.ndarray, np.ndarray]:
    """How often each item got each label: labels `[label]`, ascending, and counts `[item, label]`.

    Items with fewer than two labels are left out. Raises ValueError where none remains.
    """
    several = [labels for labels in map(_valid, items) if len(labels) > 1]
    if not several:
        raise ValueError("no item has two labels: agreement needs at least two annotations of one item")
    labels, codes = np.unique(np.array(list(itertools.chain.from_iterable(several)), dtype=float), return_inverse=True)
    rows = np.repeat(np.arange(len(several)), [len(values) for values in several])
    flat = np.bincount(rows * len(labels) + codes, minlength=len(several) * len(labels))
    return labels, flat.reshape(len(several), len(labels))


def kappa_of_coincidences(coincidences: np.ndarray, weights: str) -> np.ndarray:
    """Weighted kappa of symmetric matrices `[..., label, label]` of how often two labels met on one item."""
    rank = np.arange(coincidences.shape[-1], dtype=float)
    cost = np.abs(rank[:, None] - rank) ** (2 if weights == "quadratic" else 1)
    margin = coincidences.sum(axis=-1)
    expected = np.einsum("...i,ij,...j->...", margin, cost, margin) / margin.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return 1 - (coincidences * cost).sum(axis=(-2, -1)) / expected


def annotation_frame(pairs: Dataset, *, ratings: bool = True) -> pd.DataFrame:
    """One row per annotation: row of its pair in the table, annotator, preference (Int64), and the ratings.

    Columns of ratings are named as helpfulness_1 and helpfulness_2; they are left out with `ratings=False`.
    """
    column = pairs.select_columns(["annotations"]).with_format("arrow")[:].column("annotations").combine_chunks()
    flat = pc.list_flatten(column)
    frame = pd.DataFrame({"row": pc.list_parent_indices(column).to_numpy(zero_copy_only=False)})
    frame["annotator"] = pc.struct_field(flat, "annotator").to_pandas()
    frame["preference"] = pd.array(pc.struct_field(flat, "preference").to_pylist(), dtype="Int64")
    for side, name in itertools.product(SIDES if ratings else (), ATTRIBUTES):
        values = pc.struct_field(flat, [side, name]).cast(pa.float64())
        frame[f"{name}_{side[-1]}"] = values.to_numpy(zero_copy_only=False)
    return frame


def preference_items(pairs: Dataset) -> list[list[int]]:
    """The preferences that each pair was given, -100 included, in the order of the table and of the annotations."""
    given = annotation_frame(pairs, ratings=False).dropna(subset=["preference"])
    ends = np.cumsum(np.bincount(given["row"], minlength=len(pairs)))
    values = given["preference"].astype(int).tolist()
    return [values[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def vote_share(pairs: Dataset) -> Float[np.ndarray, "pair"]:
    """Share of a pair's valid votes that favour response 2, as a soft label: `(votes + 1/2) / (all votes + 1)`.

    All votes count, not only the three that made the preference; one of 0 counts half for each response. NaN where a
    pair has no valid vote.
    """
    votes = [np.sign(_valid(values)) for values in preference_items(pairs)]
    shares = [((signs + 1).sum() / 2 + VOTE_PRIOR) / (len(signs) + 2 * VOTE_PRIOR) for signs in votes]
    return np.where([len(signs) > 0 for signs in votes], shares, np.nan)


@lru_cache(maxsize=2**16)  # few different lists of votes occur, however many pairs there are
def _kept_positions(values: tuple[Value, ...]) -> tuple[int, ...]:
    valid = [position for position, value in enumerate(values) if value is not None and value != NEITHER_VALID]
    if len(valid) <= N_KEPT:
        return tuple(valid)
    exact = {position: _exact(values[position]) for position in valid}
    overall = sum(exact.values())

    def spread(positions: tuple[int, ...]) -> tuple[Any, ...]:
        chosen = [exact[position] for position in positions]
        total = sum(chosen)
        # 9 times the variance and 3 * len(valid) times the distance of the means: whole numbers stay whole.
        variance = 3 * sum(value * value for value in chosen) - total * total
        return max(chosen) - min(chosen), variance, abs(total * len(valid) - N_KEPT * overall)

    return min(itertools.combinations(valid, N_KEPT), key=spread)


def _exact(value: Any) -> Fraction | int:
    """The number itself: an int where it is whole, which is fast, else a Fraction. Nothing is rounded."""
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    try:
        exact = Fraction(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"annotation {value} is not a finite number: leave it out, or use None") from error
    return exact.numerator if exact.denominator == 1 else exact


def _mean(values: Sequence[Any]) -> Fraction:
    return Fraction(sum(map(_exact, values)), len(values))


def _valid(values: Sequence[Value]) -> list[Any]:
    return [value for value in values if value is not None and value != NEITHER_VALID]


def _rated(annotations: Sequence[Mapping[str, Any]], side: str) -> list[Mapping[str, Any]]:
    """The ratings of one side, from the annotations that rate its helpfulness."""
    if side not in SIDES:
        raise ValueError(f"unknown side {side!r}; use one of {', '.join(SIDES)}")
    given = [annotation.get(side) or {} for annotation in annotations]
    return [ratings for ratings in given if ratings.get("helpfulness") is not None]


def _retained(annotations: Sequence[Mapping[str, Any]], side: str) -> list[Mapping[str, Any]]:
    rated = _rated(annotations, side)
    return [rated[position] for position in kept_positions([ratings["helpfulness"] for ratings in rated])]


def _preference_counts(values: Sequence[int], label: int | None) -> list[int]:
    valid = len(_valid(values))
    outcomes = [(len(values), bool(values)), (valid, valid >= N_KEPT), (N_KEPT, True), (N_KEPT, label is not None)]
    return _until_dropped([*outcomes, (N_KEPT, label != 0)])


def _until_dropped(outcomes: Iterable[tuple[int, bool]]) -> list[int]:
    """The counts of the steps before the first one that is not passed."""
    return [count for count, _ in itertools.takewhile(lambda outcome: outcome[1], outcomes)]
