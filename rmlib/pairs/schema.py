"""The columns of the table of pairs, and the check that one row fits them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Features, List, Value

from rmlib.pairs.messages import MESSAGES, Answer, check_messages, check_response, extras_of, text_of
from rmlib.records.errors import DataError, Place, check_number, check_string, number_within, shown

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_ATTRIBUTES = frozenset(ATTRIBUTES)
SPLITS = ("train", "validation")
RATING_RANGE = (0, 4)
PREFERENCE_RANGE = (-3, 3)
NEITHER_VALID = -100  # an annotator's "neither response is valid"; never the preference of a pair

SCORES = {attribute: Value("float64") for attribute in ATTRIBUTES}
ANNOTATION = {
    "annotator": Value("string"),
    "preference": Value("int64"),
    "statement": Value("string"),
    "elaboration": Value("string"),
    "justification": Value("string"),
    "ratings_1": SCORES,
    "ratings_2": SCORES,
}
FEATURES = Features(
    {
        "pair_id": Value("string"),
        "split": Value("string"),
        "prompt": MESSAGES,
        "response_1": Value("string"),
        "response_2": Value("string"),
        "extras_1": Value("string"),  # what else the message of a response carries, as JSON text of an object
        "extras_2": Value("string"),
        "ratings_1": SCORES,
        "ratings_2": SCORES,
        "preference": Value("int64"),
        "annotations": List(ANNOTATION),
        "truth_1": SCORES,
        "truth_2": SCORES,
        "truth_preference": Value("float64"),
    }
)


def check_preference(value: Any, place: Place) -> int:
    """The value as an int, if it is a whole number in -3..3; else DataError."""
    number = check_number(value, PREFERENCE_RANGE, place)
    if not number.is_integer():
        raise DataError(place, f"{value} is not a whole number", "Use -3 (response 1 much better) to 3")
    return int(number)


def check_scores(scores: Any, limits: tuple[float, float], place: Place) -> dict[str, float | None] | None:
    """One number or null for each attribute; null where all are."""
    if scores is None:
        return None
    if not isinstance(scores, (dict, Mapping)) or not scores.keys() <= _ATTRIBUTES:
        raise DataError(place, f"{shown(scores)} does not map attributes", f"Use {', '.join(ATTRIBUTES)}")
    checked: dict[str, float | None] = dict.fromkeys(ATTRIBUTES)
    for attribute, value in scores.items():
        if value is not None:
            number = number_within(value, limits)
            if number is None:
                number = check_number(value, limits, place.at(f"{place.field}.{attribute}"))
            checked[attribute] = number
    return None if all(value is None for value in checked.values()) else checked


def check_annotation(given: Any, place: Place) -> dict[str, Any]:
    """One annotator's judgement with every field of the schema.

    Its preference may be -100 (neither response is valid), or null where only ratings are known.
    """
    if not isinstance(given, (dict, Mapping)) or not given.keys() <= ANNOTATION.keys():
        raise DataError(place, f"{shown(given)} is not an annotation", f"Its fields are {', '.join(ANNOTATION)}")
    annotation = dict.fromkeys(ANNOTATION) | dict(given)
    if annotation["preference"] not in (None, NEITHER_VALID):
        annotation["preference"] = check_preference(annotation["preference"], place.at(f"{place.field}.preference"))
    for field in ("annotator", "statement", "elaboration", "justification"):
        if annotation[field] is not None:
            check_string(annotation[field], place.at(f"{place.field}.{field}"))
    for field in ("ratings_1", "ratings_2"):
        if annotation[field] is not None:
            annotation[field] = check_scores(annotation[field], RATING_RANGE, place.at(f"{place.field}.{field}"))
    if annotation["preference"] is None and not (annotation["ratings_1"] or annotation["ratings_2"]):
        raise DataError(place, "neither a preference nor a rating", "Give one, or leave the annotation out")
    return annotation


def check_row(row: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The row with every column of the table but for `pair_id`, missing optional ones null; else DataError.

    The prompt is a list of messages with any keys, a response a text, an Answer or a message of the assistant. The
    second response may be null where the first is rated, and nothing is said of a second.
    """
    unknown = sorted(set(row) - set(FEATURES))
    if unknown:
        raise DataError(place.at(unknown[0]), "unknown column", f"The columns are {', '.join(FEATURES)}")
    pair: dict[str, Any] = dict.fromkeys(FEATURES) | dict(row)
    if pair["split"] not in SPLITS:
        raise DataError(place.at("split"), f"{shown(pair['split'])} is not a split", f"Use one of {', '.join(SPLITS)}")
    pair["prompt"] = check_messages(pair["prompt"], place.at("prompt"))
    for side in "1" if _is_single(pair) else "12":
        pair |= _check_side(side, pair[f"response_{side}"], pair[f"extras_{side}"], place)
    for field in ("ratings_1", "ratings_2"):
        pair[field] = check_scores(pair[field], RATING_RANGE, place.at(field))
    for field in ("truth_1", "truth_2"):
        pair[field] = check_scores(pair[field], (-math.inf, math.inf), place.at(field))
    if pair["truth_preference"] is not None:
        pair["truth_preference"] = check_number(
            pair["truth_preference"], (-math.inf, math.inf), place.at("truth_preference")
        )
    if pair["preference"] is not None:
        pair["preference"] = check_preference(pair["preference"], place.at("preference"))
    if pair["annotations"] is not None:
        if not isinstance(pair["annotations"], Sequence) or isinstance(pair["annotations"], str):
            problem = f"{shown(pair['annotations'])} is not a list of annotations"
            raise DataError(place.at("annotations"), problem, "Give a list, or null")
        entries = enumerate(pair["annotations"])
        pair["annotations"] = [check_annotation(entry, place.at(f"annotations[{i}]")) for i, entry in entries]
    return pair


def _is_single(pair: Mapping[str, Any]) -> bool:
    of_two = ("response_2", "extras_2", "ratings_2", "truth_2", "preference", "truth_preference")
    return pair["ratings_1"] is not None and all(pair[column] is None for column in of_two)


def _check_side(side: str, given: Any, extras: str | None, place: Place) -> dict[str, Any]:
    """The columns of one response, from a text with its extras or from a message."""
    response = Answer(given, extras) if isinstance(given, str) and extras is not None else given
    checked = check_response(response, place.at(f"response_{side}"))
    return {f"response_{side}": text_of(checked), f"extras_{side}": extras_of(checked)}
