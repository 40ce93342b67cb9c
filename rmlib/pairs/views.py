"""Views of the table, and the one place that says who is chosen, how strongly, and which pairs are left out.

Every other module asks here: a preference is positive for response 2, 0 is a tie, null is no judgement.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features, Json, List, Value
from jaxtyping import Bool, Float, Int

from rmlib.pairs.messages import EXTRAS, MESSAGES, Response, as_message, extras_of, merged, text_of, with_own_keys
from rmlib.pairs.schema import ATTRIBUTES, RATING_RANGE, SCORES
from rmlib.pairs.singles import is_single
from rmlib.pairs.table import SCALE_TAKEN, responses_of_row, rows_of, table_of
from rmlib.records.hashing import prompt_key

logger = logging.getLogger(__name__)

PREFERENCE_FEATURES = Features(
    {
        "pair_id": Value("string"),
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "strength": Value("float64"),
    }
)
RATING_FEATURES = Features(
    {"pair_id": Value("string"), "prompt": MESSAGES, "response": Value("string"), EXTRAS: Value("string")} | SCORES
)
_SCALE = re.compile(SCALE_TAKEN.format(r"(\S+)", r"(\S+)"))
TOO_FEW = "fewer than three responses"
RANKING_FEATURES = Features({"prompt": MESSAGES, "responses": List(Value("string")), EXTRAS: List(Value("string"))})
CONVERSATION = ("prompt", "chosen", "rejected")
# The columns of the table from which both responses of a row are read.
RESPONSES = ("response_1", "response_2", "extras_1", "extras_2")


# --- who is chosen, how strongly --------------------------------------------------------------------------------------


def preferences(pairs: Dataset) -> Float[np.ndarray, "pair"]:
    """The preference of every pair, -3..3, positive for response 2; NaN where there is none."""
    return np.array([math.nan if value is None else value for value in pairs["preference"][:]], dtype=float)


def signs(pairs: Dataset) -> Int[np.ndarray, "pair"]:
    """1 where response 2 is chosen, -1 where response 1 is, 0 where nobody decided (a tie, or no preference)."""
    return np.sign(np.nan_to_num(preferences(pairs))).astype(int)


def is_decided(pairs: Dataset) -> Bool[np.ndarray, "pair"]:
    """Which pairs have a chosen response."""
    return signs(pairs) != 0


def has_two(pairs: Dataset) -> Bool[np.ndarray, "pair"]:
    """Which rows have two responses; the others are rated single responses."""
    return np.array([text is not None for text in pairs["response_2"][:]], dtype=bool)


def only_pairs(pairs: Dataset) -> Dataset:
    """The rows with two responses; others are counted and logged."""
    two = has_two(pairs)
    if two.all():
        return pairs
    logger.info("%d of %d rows are single responses, left out", (~two).sum(), len(two))
    return pairs.select(np.flatnonzero(two))


def decided(pairs: Dataset) -> Dataset:
    """The pairs that have a chosen response, in their order."""
    return pairs.select(np.flatnonzero(is_decided(pairs)))


def margins_of_chosen(pairs: Dataset, rewards: Float[np.ndarray, "*any pair 2"]) -> Float[np.ndarray, "*any decided"]:
    """Reward of the chosen minus that of the rejected response, of the decided pairs in the order of the table."""
    sign = signs(pairs)
    return ((rewards[..., 1] - rewards[..., 0]) * sign)[..., sign != 0]


def ratings_of(pairs: Dataset, attributes: Sequence[str]) -> Float[np.ndarray, "pair 2 attribute"]:
    """Ratings (0-4) of both responses, NaN where nobody rated; ValueError for an unknown attribute."""
    if missing := set(attributes) - set(ATTRIBUTES):
        raise ValueError(f"no rating is called {sorted(missing)}; known: {', '.join(ATTRIBUTES)}")
    sides = [
        [[(ratings or {}).get(name) for name in attributes] for ratings in pairs[f"ratings_{side}"][:]] for side in "12"
    ]
    return np.array(sides, dtype=np.float32).transpose(1, 0, 2)


def responses_of(pairs: Dataset, side: int) -> list[Response]:
    """The responses of one side, 1 or 2: their texts, and with those that carry more, what that is."""
    return merged(pairs[f"response_{side}"][:], pairs[f"extras_{side}"][:])


def rating_scale(pairs: Dataset) -> tuple[float, float]:
    """The worst and the best value of the scale on which the ratings were given, which the table has taken to 0-4.

    A rating or a prediction `r` of the table is `worst + (best - worst) * r / 4` on it.
    """
    said = _SCALE.search(pairs.info.description)
    return (float(said[1]), float(said[2])) if said else RATING_RANGE


def texts_of(pairs: Dataset) -> tuple[list[Any], list[Response]]:
    """Prompts and responses as flat lists, both responses of a pair in a row.

    A single response stands twice, so that every row has two; nobody rated or chose the second.
    """
    prompts = [prompt for prompt in pairs["prompt"][:] for _ in range(2)]
    two = zip(responses_of(pairs, 1), responses_of(pairs, 2), strict=True)
    return prompts, [text for one, other in two for text in (one, one if other is None else other)]


# --- views ------------------------------------------------------------------------------------------------------------


def decided_rows(pairs: Dataset) -> list[dict[str, Any]]:
    """The decided pairs as our models read them: pair_id, prompt, responses chosen and rejected, strength (1..3)."""
    rows = []
    for pair in rows_of(pairs, "pair_id", "prompt", *RESPONSES, "preference"):
        if pair["preference"]:
            rejected, chosen = responses_of_row(pair)[:: 1 if pair["preference"] > 0 else -1]
            strength = float(abs(pair["preference"]))
            row = {"pair_id": pair["pair_id"], "prompt": pair["prompt"], "chosen": chosen, "rejected": rejected}
            rows.append(row | {"strength": strength})
    return rows


def preference_view(pairs: Dataset) -> Dataset:
    """Decided pairs as TRL takes them: message lists prompt, chosen and rejected, and strength = |preference| (1..3).

    Messages have the keys that their author gave them; where any has more than role and content, all are kept as Json.
    Ties and pairs without a preference are left out; their numbers are logged, and returned by `left_out`.
    """
    rows = [
        {
            "pair_id": row["pair_id"],
            "prompt": [with_own_keys(message) for message in row["prompt"]],
            "chosen": [as_message(row["chosen"])],
            "rejected": [as_message(row["rejected"])],
            "strength": row["strength"],
        }
        for row in decided_rows(pairs)
    ]
    if len(rows) < len(pairs):
        logger.info("preference view: %d of %d pairs; left out: %s", len(rows), len(pairs), left_out(pairs))
    if all(len(message) == 2 for row in rows for name in CONVERSATION for message in row[name]):
        return table_of(rows, PREFERENCE_FEATURES)
    return Dataset.from_list(rows, features=Features(PREFERENCE_FEATURES | dict.fromkeys(CONVERSATION, List(Json()))))


def left_out(pairs: Dataset) -> dict[str, int]:
    """How many pairs `preference_view` leaves out, by reason: {"ties": n, "no preference": n}.

    Where there are rows of one response, they are counted too, as "single responses".
    """
    preferences, single = Counter(pairs["preference"][:]), int((~has_two(pairs)).sum())
    reasons = {"ties": preferences[0], "no preference": preferences[None] - single}
    return reasons | ({"single responses": single} if single else {})


def rating_view(pairs: Dataset) -> Dataset:
    """Two rows a pair, response 1 then response 2: prompt, response, one rating (0-4) an attribute, null if unrated.

    A single response is one row.
    """
    rows = []
    for pair in rows_of(pairs, "pair_id", "prompt", *RESPONSES, "ratings_1", "ratings_2"):
        for side in ("1", "2")[: 1 if is_single(pair) else 2]:
            shared = {"pair_id": pair["pair_id"], "prompt": pair["prompt"], "response": pair[f"response_{side}"]}
            rows.append(shared | {EXTRAS: pair[f"extras_{side}"]} | (pair[f"ratings_{side}"] or {}))
    return table_of(rows, RATING_FEATURES)


def ranking_view(pairs: Dataset) -> Dataset:
    """Prompts whose pairs cover more than two responses: prompt, responses best first.

    Only complete strict orders are kept: each two responses compared, no tie, no contradiction, no cycle.
    The others are counted and logged; `unranked` returns their numbers.
    """
    rows, refused = _rankings(pairs)
    refused.pop(TOO_FEW, None)
    if refused:
        logger.warning("ranking view: %d prompts kept; left out: %s", len(rows), dict(refused))
    return table_of(rows, RANKING_FEATURES)


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
    for pair in rows_of(pairs, "prompt", *RESPONSES, "preference"):
        if is_single(pair):
            continue
        pair["response_1"], pair["response_2"] = responses_of_row(pair)
        comparisons.setdefault(prompt_key(pair["prompt"]), []).append(pair)
    rows, refused = [], Counter[str]()
    for group in comparisons.values():
        several = len({pair[side] for pair in group for side in ("response_1", "response_2")}) > 2
        order = _strict_order(group) if several else TOO_FEW
        if isinstance(order, str):
            refused[order] += 1
        else:
            extras = [extras_of(response) for response in order]
            rows.append({"prompt": group[0]["prompt"], "responses": [text_of(one) for one in order], EXTRAS: extras})
    return rows, refused


def _strict_order(comparisons: list[dict[str, Any]]) -> list[Response] | str:
    """The responses best first, or the reason why the comparisons give no strict order."""
    responses = [pair[side] for pair in comparisons for side in ("response_1", "response_2")]
    beaten: dict[Response, set[Response]] = {response: set() for response in responses}
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
