"""The table that everything flows through: one row is one prompt with two responses (columns: FEATURES).

Positive numbers favour response 2, as in the released files of HelpSteer2-Preference (arXiv 2410.01257).
"""

import hashlib
import itertools
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features, List, Value

from rmlib.pairs.schema import (
    ATTRIBUTES,
    FEATURES,
    MESSAGES,
    PREFERENCE_RANGE,
    SCORES,
    SPLITS,
    DataError,
    Message,
    Place,
    check_row,
    shown,
)

__all__ = [
    "ANNOTATED",
    "ATTRIBUTES",
    "CONSENSUS",
    "DERIVED",
    "FEATURES",
    "DataError",
    "carve_selection",
    "content_hash",
    "left_out",
    "make_pairs",
    "pair_id",
    "preference_from_ratings",
    "preference_view",
    "prompt_key",
    "ranking_view",
    "rating_view",
    "unranked",
]

logger = logging.getLogger(__name__)

# Where a table's preferences come from; kept in its `info.description`, so that a title can say so.
ANNOTATED = "annotated"
DERIVED = "derived from helpfulness"
CONSENSUS = "by consensus of votes"  # |preference| tells how far the votes agree, not how much better they found it

PREFERENCE_FEATURES = Features(
    {
        "pair_id": Value("string"),
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "strength": Value("float64"),
    }
)
RATING_FEATURES = Features({"pair_id": Value("string"), "prompt": MESSAGES, "response": Value("string")} | SCORES)
TOO_FEW = "fewer than three responses"
RANKING_FEATURES = Features({"prompt": MESSAGES, "responses": List(Value("string"))})


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, characters as they are."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def prompt_key(prompt: Sequence[Message]) -> str:
    """A text that is equal exactly when two prompts are equal."""
    return canonical_json([[message["role"], message["content"]] for message in prompt])


def pair_id(prompt: Sequence[Message], response_1: str, response_2: str) -> str:
    """The stable name of a pair: first 16 hex digits of the SHA-256 of prompt and responses, in this order."""
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
) -> Dataset:
    """The table of pairs from rows that give at least split, prompt and both responses.

    Missing optional columns become null and `pair_id` is computed. Left out, counted and logged: a pair seen before,
    and a pair whose two responses are the same text, which cannot teach a preference. `preferences` says where the
    preferences come from (ANNOTATED, DERIVED or CONSENSUS); `places` where each row stands (by default origin and
    number). Raises DataError naming that place and the field.
    """
    kept: dict[str, dict[str, Any]] = {}
    repeated, identical = [], []
    numbered = (Place(origin, number) for number in itertools.count(1))
    for row, place in zip(rows, numbered if places is None else places, strict=places is not None):
        pair = _named(check_row(row, place), place.at("pair_id"))
        if pair["pair_id"] in kept:
            repeated.append(f"{pair['pair_id']} ({place})")
        elif pair["response_1"] == pair["response_2"]:
            identical.append(f"{pair['pair_id']} ({place})")
        else:
            kept[pair["pair_id"]] = pair
    _log_left_out(origin, "repeat an earlier pair", repeated)
    _log_left_out(origin, "have the same text as both responses", identical)
    if not kept:
        raise DataError(Place(origin), "no usable pair", "Give at least one prompt with two different responses")
    _warn_of_shared_prompts(kept.values(), origin)
    return _dataset(list(kept.values()), FEATURES, preferences)


def preference_view(pairs: Dataset) -> Dataset:
    """Decided pairs as TRL takes them: message lists prompt, chosen and rejected, and strength = |preference| (1..3).

    Ties and pairs without a preference are left out; their numbers are logged, and returned by `left_out`.
    """
    rows = []
    for pair in _rows(pairs, "pair_id", "prompt", "response_1", "response_2", "preference"):
        if pair["preference"]:
            rejected, chosen = sorted(("response_1", "response_2"), reverse=pair["preference"] < 0)
            row = {
                "pair_id": pair["pair_id"],
                "prompt": pair["prompt"],
                "chosen": [{"role": "assistant", "content": pair[chosen]}],
                "rejected": [{"role": "assistant", "content": pair[rejected]}],
                "strength": float(abs(pair["preference"])),
            }
            rows.append(row)
    if len(rows) < len(pairs):
        logger.info("preference view: %d of %d pairs; left out: %s", len(rows), len(pairs), left_out(pairs))
    return _dataset(rows, PREFERENCE_FEATURES)


def left_out(pairs: Dataset) -> dict[str, int]:
    """How many pairs `preference_view` leaves out, by reason: {"ties": n, "no preference": n}."""
    preferences = Counter(pairs["preference"][:])
    return {"ties": preferences[0], "no preference": preferences[None]}


def rating_view(pairs: Dataset) -> Dataset:
    """Two rows a pair, response 1 then response 2: prompt, response, one rating (0-4) an attribute, null if unrated."""
    rows = []
    for pair in _rows(pairs, "pair_id", "prompt", "response_1", "response_2", "ratings_1", "ratings_2"):
        for side in ("1", "2"):
            shared = {"pair_id": pair["pair_id"], "prompt": pair["prompt"], "response": pair[f"response_{side}"]}
            rows.append(shared | (pair[f"ratings_{side}"] or {}))
    return _dataset(rows, RATING_FEATURES)


def ranking_view(pairs: Dataset) -> Dataset:
    """Prompts whose pairs cover more than two responses: prompt, responses best first.

    Only complete strict orders are kept: each two responses compared, no tie, no contradiction, no cycle.
    The others are counted and logged; `unranked` returns their numbers.
    """
    rows, refused = _rankings(pairs)
    refused.pop(TOO_FEW, None)
    if refused:
        logger.warning("ranking view: %d prompts kept; left out: %s", len(rows), dict(refused))
    return _dataset(rows, RANKING_FEATURES)


def only_ranked(pairs: Dataset) -> Dataset:
    """The pairs of the prompts that `ranking_view` keeps, so that a loss of pairs can learn from the same texts."""
    kept = {prompt_key(row["prompt"]) for row in _rankings(pairs)[0]}
    return pairs.select([row for row, prompt in enumerate(pairs["prompt"][:]) if prompt_key(prompt) in kept])


def unranked(pairs: Dataset) -> dict[str, int]:
    """How many prompts `ranking_view` leaves out, by reason; those with fewer than three responses too."""
    return dict(_rankings(pairs)[1])


def _rankings(pairs: Dataset) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The rows of `ranking_view`, and how many prompts give none, by reason."""
    comparisons: dict[str, list[dict[str, Any]]] = {}
    for pair in _rows(pairs, "prompt", "response_1", "response_2", "preference"):
        comparisons.setdefault(prompt_key(pair["prompt"]), []).append(pair)
    rows, refused = [], Counter[str]()
    for group in comparisons.values():
        several = len({pair[side] for pair in group for side in ("response_1", "response_2")}) > 2
        order = _strict_order(group) if several else TOO_FEW
        if isinstance(order, str):
            refused[order] += 1
        else:
            rows.append({"prompt": group[0]["prompt"], "responses": order})
    return rows, refused


def carve_selection(pairs: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Two tables (train, selection): a random `fraction` of the prompts, with all their pairs, goes to selection.

    The choice depends on the prompts and the seed, not on the order of the rows. Raises ValueError where either part
    would be empty.
    """
    keys = [prompt_key(prompt) for prompt in pairs["prompt"][:]]
    prompts = sorted(set(keys))
    count = round(fraction * len(prompts))
    if not 0 < count < len(prompts):
        raise ValueError(f"fraction {fraction} of {len(prompts)} prompts leaves one part empty: choose another")
    selected = {prompts[index] for index in np.random.default_rng(seed).permutation(len(prompts))[:count]}
    inside = [index for index, key in enumerate(keys) if key in selected]
    outside = [index for index, key in enumerate(keys) if key not in selected]
    return pairs.select(outside), pairs.select(inside)


def content_hash(pairs: Dataset) -> str:
    """SHA-256 (hex) of the pair ids with split, preference and ratings, whatever the order of the rows."""
    columns = ("pair_id", "split", "preference", "ratings_1", "ratings_2")
    lines = sorted(canonical_json([pair[column] for column in columns]) for pair in _rows(pairs, *columns))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _strict_order(comparisons: list[dict[str, Any]]) -> list[str] | str:
    """The responses best first, or the reason why the comparisons give no strict order."""
    beaten: dict[str, set[str]] = {pair[side]: set() for pair in comparisons for side in ("response_1", "response_2")}
    if any(not pair["preference"] for pair in comparisons):
        return "tied or without a preference"
    for pair in comparisons:
        loser, winner = (pair["response_1"], pair["response_2"])[:: 1 if pair["preference"] > 0 else -1]
        beaten[winner].add(loser)
    if any(winner in beaten[loser] for winner, losers in beaten.items() for loser in losers):
        return "contradictory"
    if sum(map(len, beaten.values())) < math.comb(len(beaten), 2):
        return "incomplete"
    # A complete set of strict comparisons has no cycle exactly when all numbers of wins differ (Landau, 1953).
    if len({len(losers) for losers in beaten.values()}) < len(beaten):
        return "cyclic"
    return sorted(beaten, key=lambda response: -len(beaten[response]))


def _named(pair: dict[str, Any], place: Place) -> dict[str, Any]:
    name = pair_id(pair["prompt"], pair["response_1"], pair["response_2"])
    if pair["pair_id"] not in (None, name):
        raise DataError(place, f"{shown(pair['pair_id'])} does not name these texts", "Leave it out: it is computed")
    return pair | {"pair_id": name}


def _rows(pairs: Dataset, *columns: str) -> Iterator[dict[str, Any]]:
    return iter(pairs.select_columns(list(columns)).to_list())


def _dataset(rows: list[dict[str, Any]], features: Features, description: str = "") -> Dataset:
    table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features, description=description))


def _log_left_out(origin: str, reason: str, names: list[str]) -> None:
    if names:
        listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        logger.warning("%s: left out %d pairs that %s: %s", origin, len(names), reason, listed)


def _warn_of_shared_prompts(pairs: Iterable[dict[str, Any]], origin: str) -> None:
    prompts: dict[str, set[str]] = {split: set() for split in SPLITS}
    for pair in pairs:
        prompts[pair["split"]].add(prompt_key(pair["prompt"]))
    shared = len(prompts["train"] & prompts["validation"])
    if shared:
        logger.warning("%s: %d prompts occur in both train and validation", origin, shared)
