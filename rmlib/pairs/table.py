"""The table that everything flows through: one row is one prompt with two responses (columns: FEATURES).

Positive numbers favour response 2, as in the released files of HelpSteer2-Preference (arXiv 2410.01257).
"""

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features

from rmlib.pairs.merging import one_of
from rmlib.pairs.messages import Message, Response, differ_by, features_of, merged
from rmlib.pairs.schema import FEATURES, PREFERENCE_RANGE, SPLITS, check_row
from rmlib.pairs.singles import is_single, joined
from rmlib.records.errors import DataError, Place, shown
from rmlib.records.files import warn_of
from rmlib.records.hashing import canonical_json, prompt_key

logger = logging.getLogger(__name__)

# Where a table's preferences come from; kept in its `info.description`, so that a title can say so.
ANNOTATED = "annotated"
DERIVED = "derived from helpfulness"
SCALE_TAKEN = "ratings of {} to {} taken to 0 to 4"  # follows, after "; ", where ratings were given on another scale
NONE = "none"  # of a table of single responses alone
CONSENSUS = "by consensus of votes"  # |preference| tells how far the votes agree, not how much better they found it


def pair_id(prompt: Sequence[Message], response_1: Response, response_2: Response | None) -> str:
    """The stable name of a pair, or of a single response with None as the second.

    The first 16 hex digits of the SHA-256 of prompt and responses, in this order.
    """
    text = canonical_json([prompt_key(prompt), response_1, response_2])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def preference_from_ratings(helpfulness_1: float, helpfulness_2: float) -> int:
    """The preference that two helpfulness ratings imply: their difference, rounded and clipped to -3..3.

    Halves, possible with mean ratings only, round to even: exchanging the responses changes nothing but the sign.
    """
    low, high = PREFERENCE_RANGE
    return max(low, min(high, round(helpfulness_2 - helpfulness_1)))


def make_pairs(
    rows: Iterable[Mapping[str, Any]],
    *,
    origin: str,
    preferences: str = ANNOTATED,
    places: Iterable[Place] | None = None,
    repeats: Literal["merge", "first"] = "merge",
) -> Dataset:
    """The table of pairs from rows that give at least split, prompt and both responses.

    Missing optional columns become null and `pair_id` is computed. A rated response without a second one is a row too;
    those that share a prompt become pairs, whose preference is derived from helpfulness (`singles`). Left out, counted
    and logged: a pair whose two responses are the same, which cannot teach a preference. Those that have the same text,
    and differ in what else their messages carry, are kept and counted.

    Args:
        preferences: where the preferences come from (ANNOTATED, DERIVED or CONSENSUS, or a sentence).
        places: where each row stands; by default origin and number.
        repeats: what becomes of the same pair given again. "merge" makes it one pair with every vote, whichever side
            its responses stood on (`merging`), and logs it. "first" keeps the first of those in the same order, for
            published tables whose numbers were made so; the others are counted and logged.
    Raises:
        DataError: naming the place and the field.
    """
    groups: dict[str, list[tuple[dict[str, Any], Place]]] = {}
    identical = []
    numbered = (Place(origin, number) for number in itertools.count(1))
    for row, place in zip(rows, numbered if places is None else places, strict=places is not None):
        pair = _named(check_row(row, place), place.at("pair_id"))
        one, two = responses_of_row(pair)
        if one == two:
            identical.append(f"{pair['pair_id']} ({place})")
            continue
        exchanged = pair_id(pair["prompt"], two, one)
        known = exchanged if repeats == "merge" and exchanged in groups else pair["pair_id"]
        groups.setdefault(known, []).append((pair, place))
    if repeats == "first":
        repeated = [f"{pair['pair_id']} ({place})" for group in groups.values() for pair, place in group[1:]]
        _log(origin, "left out %d pairs that repeat an earlier pair", repeated)
        kept = [group[0][0] for group in groups.values()]
    else:
        kept = _merged(list(groups.values()), origin)
    _log(origin, "left out %d pairs that have the same text as both responses", identical)
    kept, preferences = _with_joined(kept, origin, preferences)
    differences = Counter(", ".join(differ_by(*responses_of_row(pair))) for pair in kept if not is_single(pair))
    for keys, count in differences.items():
        if keys:
            what = f"{count} pairs have the same text twice and differ in {keys} alone"
            logger.warning("%s: %s: where a chat template drops that, nothing is left to learn from", origin, what)
    if not kept:
        raise DataError(Place(origin), "no usable pair", "Give at least one prompt with two different responses")
    _warn_of_shared_prompts(kept, origin)
    return table_of(kept, FEATURES, preferences)


def _merged(groups: list[list[tuple[dict[str, Any], Place]]], origin: str) -> list[dict[str, Any]]:
    """One row for each group of rows of one pair; what was merged is logged with its places."""
    kept: list[dict[str, Any]] = []
    equal: list[str] = []
    different: list[str] = []
    both_splits: list[str] = []
    lost = 0
    for group in groups:
        rows = [row for row, _ in group]
        if len(rows) == 1:
            kept += rows
            continue
        made, differ, n_lost = one_of(rows, _name)
        kept.append(made)
        listed = f"{made['pair_id']} ({'; '.join(str(place) for _, place in group)})"
        (different if differ else equal).append(listed)
        if len({row["split"] for row in rows}) > 1:
            both_splits.append(listed)
        lost += n_lost
    _log(origin, "%d pairs stand in several rows with equal labels, merged", equal)
    _log(origin, "%d pairs stand in several rows whose labels differ, merged with each label as a vote", different)
    _log(origin, "%d pairs stand in train and in validation, kept in validation alone", both_splits)
    if lost:
        logger.warning("%s: %d justifications left out: the pair stands the other way round elsewhere", origin, lost)
    return kept


def _with_joined(rows: list[dict[str, Any]], origin: str, preferences: str) -> tuple[list[dict[str, Any]], str]:
    """The rows with single responses of one prompt made pairs, and where the preferences come from."""
    alone = [row for row in rows if is_single(row)]
    if not alone:
        return rows, preferences
    notes = Counter[str]()
    made, single = joined(alone, preference_from_ratings, notes)
    pairs = {row["pair_id"]: row for row in rows if not is_single(row)}
    n_labelled = sum(row["preference"] is not None for row in pairs.values())
    n_derived = 0
    for pair in made:
        one, two = responses_of_row(pair)
        name, exchanged = pair_id(pair["prompt"], one, two), pair_id(pair["prompt"], two, one)
        known = pairs.get(name) or pairs.get(exchanged)
        if known is None:
            pairs[name] = pair | {"pair_id": name}
            n_derived += pair["preference"] is not None
        else:  # it was compared by somebody: the ratings join it
            both, _, _ = one_of([known, pair | {"preference": None}], _name)
            pairs[both["pair_id"]] = both
            first, second = (both[f"ratings_{side}"]["helpfulness"] for side in "12")
            against = None not in (first, second, both["preference"]) and both["preference"] * (second - first) < 0
            notes["ratings of single responses that contradict the preference between them, which is kept"] += against
    warn_of(notes, origin, logger)
    what, _, rest = preferences.partition("; ")
    if not pairs:
        what = NONE
    elif n_derived:
        what = f"{what}, {n_derived} {DERIVED}" if n_labelled and what != DERIVED else DERIVED
    preferences = "; ".join(filter(None, (what, rest)))
    return [*pairs.values(), *single], preferences


def carve_selection(pairs: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Two tables (train, selection): a random `fraction` of the prompts, with all their pairs, goes to selection.

    The choice depends on the prompts and the seed, not on the order of the rows. Raises ValueError where either part
    would be empty.
    """
    keys = [prompt_key(prompt) for prompt in pairs["prompt"][:]]
    prompts = sorted(set(keys))
    count = round(fraction * len(prompts))
    if not 0 < count < len(prompts):
        raise ValueError(f"fraction {fraction} of {len(prompts)} prompts leaves one part empty: give more of them")
    selected = {prompts[index] for index in np.random.default_rng(seed).permutation(len(prompts))[:count]}
    inside = [index for index, key in enumerate(keys) if key in selected]
    outside = [index for index, key in enumerate(keys) if key not in selected]
    return pairs.select(outside), pairs.select(inside)


def content_hash(pairs: Dataset) -> str:
    """SHA-256 (hex) of the pair ids with split, preference and ratings, whatever the order of the rows."""
    columns = ("pair_id", "split", "preference", "ratings_1", "ratings_2")
    lines = sorted(canonical_json([pair[column] for column in columns]) for pair in rows_of(pairs, *columns))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def responses_of_row(pair: Mapping[str, Any]) -> list[Response]:
    """Both responses of a row, with what else their messages carry."""
    return merged((pair["response_1"], pair["response_2"]), (pair["extras_1"], pair["extras_2"]))


def _named(pair: dict[str, Any], place: Place) -> dict[str, Any]:
    name = _name(pair)
    if pair["pair_id"] not in (None, name):
        raise DataError(place, f"{shown(pair['pair_id'])} does not name these texts", "Leave it out: it is computed")
    return pair | {"pair_id": name}


def _name(pair: Mapping[str, Any]) -> str:
    return pair_id(pair["prompt"], *responses_of_row(pair))


def rows_of(pairs: Dataset, *columns: str) -> Iterator[dict[str, Any]]:
    """Some columns of a table, row by row."""
    return iter(pairs.select_columns(list(columns)).to_list())


def table_of(rows: list[dict[str, Any]], features: Features, description: str = "") -> Dataset:
    """A table of these rows; `description` says where its preferences come from."""
    features = features_of(features, rows)
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features, description=description))


def _log(origin: str, what: str, names: list[str]) -> None:
    """Warn of pairs by number, and of the first ten by name; `what` has %d where their number stands."""
    if names:
        listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        logger.warning(f"%s: {what}: %s", origin, len(names), listed)


def _warn_of_shared_prompts(pairs: Iterable[dict[str, Any]], origin: str) -> None:
    prompts: dict[str, set[str]] = {split: set() for split in SPLITS}
    for pair in pairs:
        prompts[pair["split"]].add(prompt_key(pair["prompt"]))
    shared = len(prompts["train"] & prompts["validation"])
    if shared:
        logger.warning("%s: %d prompts occur in both train and validation", origin, shared)
