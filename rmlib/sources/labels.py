"""What files give as labels becomes preferences (-3..3, positive for response 2) and ratings (0-4), or is refused.

Nobody can tell from a column of 0 and 1, or of letters, which response each value favours: such a column is refused
with the readings to choose from. `labels` names one:

- "X/Y": X where response 1 is better, Y where response 2 is; "X/Y/T": T where neither is. Names that mean the same
  stand in a row ("A,left/B,right/tie,both"). "X>Y" and "X>>Y" are strengths 1 and 2, "[[X]]" is X. Without T, words
  such as "tie" and the middle of two numbers (votes shared half and half) are ties.
- "low..high": a scale from "response 1 is much better" to "response 2 is much better", either way round; its middle is
  a tie. Steps are counted from there; over three on a side are shared out over 1 to 3, and fractions go up, so that no
  slight preference becomes a tie.
- {value: preference} of Python or a run file, for what the others cannot say.

Read without `labels` are whole numbers within -3..3 of which one is negative (in every file of 8 labels or more), and a
column of winners that names the responses by their place. Rows of a table of pairs that we wrote (they have a pair_id)
are read as they are.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rmlib.pairs import ANNOTATED, DERIVED, preference_from_ratings
from rmlib.pairs.schema import PREFERENCE_RANGE, RATING_RANGE, check_preference
from rmlib.pairs.table import SCALE_TAKEN
from rmlib.records.errors import DataError, Place, shown
from rmlib.sources.ratings import BESIDE, Refused, Row, helpfulness, is_number, listed, note_contradictions, rate

logger = logging.getLogger(__name__)

Read = Callable[[str], int | None]  # from a value as `_key` writes it to its preference; None: it means nothing

LABEL_KINDS = ("chosen", "preference", "winner")
UNLABELLED = ("refuse", "derive", "leave_out", "keep")
ENOUGH = 8  # labels of one file after which it is odd that none is negative, where those of others are
_OWN = f"{PREFERENCE_RANGE[0]}..{PREFERENCE_RANGE[1]}"
_NUMBER = r"\s*([+-]?\d+(?:\.\d+)?)\s*"
_SCALE = re.compile(rf"{_NUMBER}\.\.{_NUMBER}")
_COMPARED = re.compile(r"(.+?)\s*(>{1,3}|<{1,3}|=+|~)\s*(.+)")
_TIES = frozenset({"tie", "tied", "ties", "draw", "equal", "same", "both", "neither"})
_TIE = re.compile(r"(tie|neither|both([ _-]?(bad|good))?)(\b|_)")
_NOUN = r"(?:model|response|answer|assistant|chatbot|completion|output|candidate|option)[ _-]?"
_SIDES = {
    -1: re.compile(rf"(?:{_NOUN})?a|{_NOUN}1|first|left"),
    1: re.compile(rf"(?:{_NOUN})?b|{_NOUN}2|second|right"),
}


def preferences_of(
    rows: list[tuple[Place, Row]],
    *,
    labels: str | Mapping[Any, int] | None = None,
    scale: tuple[float, float] | None = None,
    unlabelled: str = "refuse",
    bad: list[tuple[DataError, Row]] | None = None,
) -> tuple[list[tuple[Place, Row]], str]:
    """The rows with `preference` and ratings on 0-4, and where the preferences come from (for `make_pairs`).

    Args:
        rows: each with `label` (as the file has it; None, NaN and an empty text are no label) and `label_kind`:
            "chosen" (a preference already, because the layout says who is chosen), "preference" (a column of numbers
            or codes) or "winner" (a column that names the better response). Ratings stand in `ratings_1` and
            `ratings_2`, or as single numbers, which count as helpfulness, in `score_1` and `score_2`. `label_column`
            is what the file calls the column of labels. A rated single response has a null `response_2`, and no label.
        labels: how labels are read (see above).
        scale: the lowest and the highest value of the scale of the ratings, the worse end first; it is taken to 0-4.
        unlabelled: what happens to rows without a label beside rows that have one: "refuse"; "derive" their preference
            from helpfulness; "leave_out"; "keep" them without a preference, so that regression alone learns from them.
            Where no row has a label, all are derived, and this holds for the rows that are not rated.
        bad: takes the rows whose own label or rating cannot be read, which are left out; without it the first raises.

    Labels that contradict helpfulness are kept; they, and what was derived or left out, are counted and logged. Raises
    DataError naming file, row and column.
    """
    if unlabelled not in UNLABELLED:
        problem = f"{shown(unlabelled)} says not what to do with rows without a preference"
        raise DataError(Place("unlabelled"), problem, f"Use one of {', '.join(UNLABELLED)}")
    read = None if labels is None else _reading(labels)
    made, refused = [(place, dict(row)) for place, row in rows], Refused(bad)
    n_taken = rate(made, scale, refused)
    if scale is not None and not n_taken:
        raise DataError(Place("rating_scale"), f"no rating to take from {shown(scale)}", "Leave the option out")
    n_read = 0
    for kind in LABEL_KINDS:
        of_kind = [(place, row) for place, row in made if row.get("label_kind", "preference") == kind]
        n_read += _label(of_kind, kind, read, refused)
    if read is not None and not n_read:
        raise DataError(Place("labels"), f"no row has a label to read as {shown(labels)}", "Leave the option out")
    made = refused.others(made)
    note_contradictions(made)
    kept, derived = _without_gaps(made, unlabelled)
    for _, row in kept:
        for name in ("label", "label_kind", "label_column", "score_1", "score_2", f"{BESIDE}1", f"{BESIDE}2"):
            row.pop(name, None)
    origin = ANNOTATED if not derived else DERIVED
    if 0 < derived < sum(row["preference"] is not None for _, row in kept):
        origin = f"{ANNOTATED}, {derived} {DERIVED}"
    if scale is not None and (ends := tuple(map(float, scale))) != RATING_RANGE:
        origin += "; " + SCALE_TAKEN.format(*(f"{end:g}" for end in ends))
    return kept, origin


# --- labels -----------------------------------------------------------------------------------------------------------


def _label(rows: list[tuple[Place, Row]], kind: str, read: Read | None, refused: Refused) -> int:
    """Write `preference` into rows of one kind, None where there is no label; returns how many a reading was for."""
    given = []
    for place, row in rows:
        row["preference"], key = None, _key(row.get("label"))
        if key is None:
            continue
        column = row.get("label_column") or ("strength" if kind == "chosen" else kind)
        if kind != "chosen" and row.get("pair_id") is None:
            given.append((place.at(column), row, key))
            continue
        with refused.row(row):
            row["preference"] = check_preference(row["label"], place.at(column))
    if not given:
        return 0
    if read is None:
        read = _read_by_itself(given, kind)
    for place, row, key in given:
        row["preference"] = read(key)
        if row["preference"] is None:
            problem = f"{shown(row['label'])} is not a preference that labels names"
            with refused.row(row):
                remedy = "Name it there (after a comma, beside what means the same), or correct it"
                raise DataError(place, problem, remedy)
    counts = Counter((key, row["preference"]) for _, row, key in given if row["preference"] is not None)
    shares = ", ".join(f"{shown(key)} is {preference:+d} ({n})" for (key, preference), n in sorted(counts.items()))
    logger.info("%s: preferences read from %s: %s", given[0][0].origin, given[0][0].field, shares)
    return len(given)


def _read_by_itself(given: list[tuple[Place, Row, str]], kind: str) -> Read:
    """How labels are read that need no `labels`; else DataError with the readings to choose from."""
    if _are_own_numbers([row["label"] for _, row, _ in given]):
        by_file: dict[str, list[tuple[Place, Row, str]]] = {}
        for each in given:
            by_file.setdefault(each[0].origin, []).append(each)
        others = [
            part for part in by_file.values() if len(part) >= ENOUGH and not any(row["label"] < 0 for _, row, _ in part)
        ]
        if not others:
            return lambda key: int(float(key))
        given = others[0]
    place, values = given[0][0], [row["label"] for _, row, _ in given]
    keys = sorted({key for _, _, key in given})
    names = _names(_side)
    if kind == "winner" and all(names(key) is not None for key in keys):
        return names
    seen = ", ".join(sorted({shown(value) for value in values})[:7])
    problem = f"preferences of {seen} in {len(given)} rows can be read in more than one way"
    readings = "; ".join(f"{reading!r} ({meaning})" for reading, meaning in _readings(keys))
    raise DataError(place, problem, f"Say how with labels: {readings}")


def _are_own_numbers(values: list[Any]) -> bool:
    """Whether all are whole numbers within -3..3, one of them negative."""
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return False
    low, high = PREFERENCE_RANGE
    return min(values) < 0 and all(low <= value <= high and float(value).is_integer() for value in values)


def _readings(keys: list[str]) -> Iterator[tuple[str, str]]:
    """Readings that fit the values, each with what it says."""
    if not all(map(is_number, keys)):
        words = [key for key in keys if not _is_tie(key) and not _COMPARED.fullmatch(key)]
        if len(words) < len(keys) and not words:
            words = ["a", "b"]
        if len(words) == 2 and all(key in ("false", "true") or _side(key) for key in words):
            yield from _both_ways(*words)
        else:  # names that say nothing of a place, such as those of models, are not proposed
            yield from _both_ways("X", "Y")
        yield "X/Y/T", "X: response 1 is better, Y: response 2 is, T: neither"
        return
    numbers = {float(key) for key in keys}
    least, most = min(numbers), max(numbers)
    if numbers <= {0, 1} or numbers <= {0, 0.5, 1}:
        yield from _both_ways("0", "1")
    if numbers <= {1, 2}:
        yield from _both_ways("1", "2")
    elif numbers <= {0, 1, 2} and most == 2:
        yield "1/2/0", "1: response 1 is better, 2: response 2 is, 0: neither"
        yield "0/1/2", "0: response 1 is better, 1: response 2 is, 2: neither"
    elif least >= 0 and most <= 1 and not numbers <= {0, 0.5, 1}:
        yield "0..1", "the share that finds response 2 better"
        yield "1..0", "the share that finds response 1 better"
    elif most > 1 or least < 0:
        low = min(least, 1) if least >= 0 else -max(-least, most)
        scales = f"{low:g}..{max(most, -low):g}", f"{max(most, -low):g}..{low:g}"
        yield scales[0], "a scale up to: response 2 is much better; name its real ends"
        yield scales[1], "the same scale the other way round"
    if PREFERENCE_RANGE[0] <= least and most <= PREFERENCE_RANGE[1] and all(map(float.is_integer, numbers)):
        yield _OWN, "the table's own numbers, positive where response 2 is better"


def _is_tie(key: str) -> bool:
    return key in _TIES or _TIE.match(key) is not None


def _both_ways(first: str, second: str) -> Iterator[tuple[str, str]]:
    yield f"{first}/{second}", f"{first}: response 1 is better, {second}: response 2 is"
    yield f"{second}/{first}", f"{second}: response 1 is better, {first}: response 2 is"


def _reading(labels: str | Mapping[Any, int]) -> Read:
    """The reading that `labels` names. Raises DataError."""
    if isinstance(labels, Mapping):
        return {_key(value): check_preference(meant, Place("labels")) for value, meant in labels.items()}.get
    if isinstance(labels, str) and (ends := _SCALE.fullmatch(labels)):
        first, second = (float(end) for end in ends.groups())
        if first != second:
            return _scale(first, second)
    parts = labels.split("/") if isinstance(labels, str) else []
    named = [{_key(name) or "" for name in part.split(",")} for part in parts]
    if len(named) not in (2, 3) or not all(map(all, named)) or len(set().union(*named)) < sum(map(len, named)):
        problem = f"{shown(labels)} says not how preferences are read"
        raise DataError(
            Place("labels"), problem, "Write 'X/Y', 'X/Y/T' (T: a tie) or 'low..high', as in '0/1' or '1..5'"
        )
    sides = {name: side for side, names in zip((-1, 1, 0), named, strict=False) for name in names}
    if len(named) == 2 and all(len(names) == 1 and is_number(min(names)) for names in named):
        middle = sum(float(min(names)) for names in named) / 2
        sides[_key(middle) or ""] = 0
    return _names(sides.get)


def _names(side: Callable[[str], int | None]) -> Read:
    """Reads the names that `side` knows, ties, and comparisons of two names."""

    def one(key: str) -> int | None:
        found = side(key)
        if found is None and key in ("false", "true"):
            found = side(str(int(key == "true")))
        if found is None and _is_tie(key):
            return 0
        return found

    def read(key: str) -> int | None:
        found, compared = one(key), _COMPARED.fullmatch(key)
        if found is not None or compared is None:
            return found
        left, sign, right = compared.groups()
        sides = side(left), side(right)
        if sides not in ((-1, 1), (1, -1)):
            return None
        if sign[0] in "=~":
            return 0
        winner = sides[0] if sign[0] == ">" else sides[1]
        return None if winner is None else winner * len(sign)

    return read


def _side(key: str) -> int | None:
    """The side that a name means by itself: "model_a" is response 1."""
    return next((side for side, pattern in _SIDES.items() if pattern.fullmatch(key)), None)


def _scale(first: float, second: float) -> Read:
    middle, half = (first + second) / 2, abs(second - first) / 2
    steps = PREFERENCE_RANGE[1] / max(half, PREFERENCE_RANGE[1])

    def read(key: str) -> int | None:
        if not is_number(key) or abs(float(key) - middle) > half:
            return None
        away = (float(key) - middle) * (1 if second > first else -1)
        return int(math.copysign(math.ceil(round(abs(away) * steps, 9)), away))

    return read


def _key(value: Any) -> str | None:
    """A label as it is compared: without case, outer blanks and [[ ]], numbers by their value; None: there is none."""
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    text = str(value).strip().strip("[]").strip().casefold()
    try:
        number = float(text)
    except (ValueError, OverflowError):
        return text or None
    return None if math.isnan(number) else f"{number:.12g}"


# --- what labels and ratings say of each other ------------------------------------------------------------------------


def _is_rated_single(row: Row) -> bool:
    ratings = row.get("ratings_1") or {}
    return row.get("response_2") is None and any(value is not None for value in ratings.values())


def _without_gaps(rows: list[tuple[Place, Row]], unlabelled: str) -> tuple[list[tuple[Place, Row]], int]:
    """The rows that stay, and how many preferences were derived from helpfulness."""
    none_labelled = all(row["preference"] is None for _, row in rows)
    given_none = [
        (place, row)
        for place, row in rows
        if row["preference"] is None and row.get("pair_id") is None and not _is_rated_single(row)
    ]
    derived = [(place, row) for place, row in given_none if helpfulness(row) is not None]
    if none_labelled and given_none and not derived and unlabelled != "keep":
        problem = "no row has a preference, or the helpfulness of both responses"
        remedy = "Add preference or ratings_1 and ratings_2, or name its column, as in columns={'judged': 'label'}"
        raise DataError(Place(given_none[0][0].origin), problem, remedy)
    if not none_labelled and unlabelled != "derive":
        derived = []
    for _, row in derived:
        row["preference"] = preference_from_ratings(*(helpfulness(row) or (0, 0)))
    if derived:
        ties = sum(row["preference"] == 0 for _, row in derived)
        logger.info("%s: %d preferences %s, %d of them ties", derived[0][0].origin, len(derived), DERIVED, ties)
    left = [(place, row) for place, row in given_none if row["preference"] is None]
    if not left:
        return rows, len(derived)
    places = [place for place, _ in left]
    if unlabelled in ("refuse", "derive"):
        rated = sum(helpfulness(row) is not None for _, row in left)
        what = f"{len(left)} of {len(rows)} rows have no preference, and {rated} of these a rating of both responses"
        remedy = "Say with unlabelled: 'derive' (from helpfulness), 'leave_out', or 'keep' (for regression alone)"
        raise DataError(places[0].at("preference"), f"{what}: {listed(places)}", remedy)
    done = "left out" if unlabelled == "leave_out" else "kept"
    logger.warning("%s: %s %d rows without a preference: %s", places[0].origin, done, len(left), listed(places))
    dropped = {id(row) for _, row in left} if unlabelled == "leave_out" else set()
    return [(place, row) for place, row in rows if id(row) not in dropped], len(derived)
