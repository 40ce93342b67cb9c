"""The same pair given more than once: one row with every vote, whichever side the responses stood on.

Equal labels are one label. Different ones become annotations of the pair, and its preference comes from them as that
of HelpSteer2-Preference does (`consensus`). The order of the rows tells nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any

from rmlib.pairs.consensus import preference_of_repeats
from rmlib.pairs.schema import ATTRIBUTES, FEATURES, NEITHER_VALID, SPLITS

Row = dict[str, Any]

_LABELS = ("preference", "ratings_1", "ratings_2", "annotations")
_TEXTS = ("statement", "elaboration", "justification")
_SIDES = [name for name in FEATURES if name.endswith("_1")]


def turned(row: Row) -> Row:
    """The row with its responses exchanged, and all that is said of them with it.

    A justification calls the responses by their number: its texts do not fit the exchanged pair, and are left out.
    """
    exchanged = _exchanged(row, _SIDES) | {"pair_id": None}
    if row["truth_preference"] is not None:
        exchanged["truth_preference"] = -row["truth_preference"]
    if row["annotations"] is not None:
        exchanged["annotations"] = [
            _exchanged(annotation, ["ratings_1"]) | dict.fromkeys(_TEXTS) for annotation in row["annotations"]
        ]
    return exchanged


def one_of(rows: Sequence[Row], name: Callable[[Row], str]) -> tuple[Row, bool, int]:
    """The one row of all rows of a pair, checked ones; whether labels differed; how many justifications were lost.

    `name` says the id of a pair. Where the responses stood both ways, they stand as in the rows with justifications,
    or else as their texts sort. A pair of both splits is held out.
    """
    first = min(rows, key=lambda row: (-_n_texts([row]), row["response_1"], name(row)))
    alike = [row if name(row) == name(first) else turned(row) for row in rows]
    alike.sort(key=repr)
    made = {column: _first(row[column] for row in alike) for column in FEATURES} | {"pair_id": name(first)}
    made["split"] = max((row["split"] for row in rows), key=SPLITS.index)
    labels = ([repr(row[column]) for row in alike if row[column] is not None] for column in _LABELS)
    differ = any(len(set(given)) > 1 for given in labels)
    if differ:
        made |= _of_votes(alike)
    return made, differ, _n_texts(rows) - _n_texts(alike)


def _of_votes(alike: Sequence[Row]) -> Row:
    """Preference, ratings and annotations of rows whose labels differ.

    The same annotation of a named annotator counts once: without names, they are votes of others.
    """
    votes: list[Row] = []
    known: list[Row] = []  # named annotations of rows before
    for row in alike:
        given = row["annotations"] or []
        if not given or not all(vote in known for vote in given):
            votes += [vote for vote in _votes(row) if vote not in known]
        known += [vote for vote in given if vote["annotator"] is not None]
    given = {row["preference"] for row in alike} - {None}
    preference = _first(given) if len(given) < 2 else preference_of_repeats([vote["preference"] for vote in votes])
    return {"preference": preference, "annotations": votes or None} | {
        side: _mean_ratings([row[side] for row in alike if row[side]]) for side in ("ratings_1", "ratings_2")
    }


def _votes(row: Row) -> list[Row]:
    """The annotations of a row; where none has a preference, what the row itself says is one more vote."""
    given = list(row["annotations"] or [])
    if any(annotation["preference"] is not None for annotation in given):
        return given
    own = {field: row[field] for field in ("preference", "ratings_1", "ratings_2")}
    if any(value is not None for value in own.values()):
        given.append(dict.fromkeys(("annotator", *_TEXTS)) | own)
    return given


def _mean_ratings(given: Sequence[dict[str, float | None]]) -> dict[str, float | None] | None:
    values = {name: [value for one in given if (value := one[name]) is not None] for name in ATTRIBUTES}
    means = {name: sum(known) / len(known) if known else None for name, known in values.items()}
    return means if given else None


def _exchanged(row: Row, sides: Sequence[str]) -> Row:
    """The row with its columns `..._1` and `..._2` exchanged, and its preference turned."""
    exchanged = dict(row)
    for one in sides:
        two = one[:-1] + "2"
        exchanged[one], exchanged[two] = row[two], row[one]
    if row["preference"] not in (None, NEITHER_VALID):
        exchanged["preference"] = -row["preference"]
    return exchanged


def _n_texts(rows: Sequence[Row]) -> int:
    annotations = [annotation for row in rows for annotation in row["annotations"] or []]
    return sum(any(annotation[text] for text in _TEXTS) for annotation in annotations)


def _first(values: Any) -> Any:
    """The first that is not null."""
    return next((value for value in values if value is not None), None)
