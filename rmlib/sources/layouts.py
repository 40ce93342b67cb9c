"""The layouts of pairs that people have: the columns that tell one from another, and how its rows are read.

A row as read has columns of the table of pairs (prompt, response_1, response_2, ...) and its raw label: `label`,
`label_kind` ("chosen": the layout itself says it, in -3..3; "preference": numbers or codes; "winner": a letter or a
name) and `label_column`. What a number or a letter means is decided in `sources.labels`.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rmlib.pairs import pair_id
from rmlib.pairs.messages import Answer
from rmlib.pairs.schema import ATTRIBUTES, check_preference
from rmlib.records.errors import DataError, Place, check_number, shown
from rmlib.sources.conversations import TEXTS, WRITTEN_MESSAGES, better_first, ending, one_response, two_responses
from rmlib.sources.ratings import BESIDE

Row = dict[str, Any]
LABELS = dict.fromkeys(("preference", "label", "overall_preference", "better_response_id"), "preference")
LABELS |= dict.fromkeys(  # column of a label: its kind
    ("winner", "preferred", "preferred_response", "better", "better_response", "choice", "chosen", "verdict"), "winner"
)
UNKNOWN_STRENGTH: Row = {"note": "strength unknown, taken as 1"}  # a note is counted and logged
NAMES = frozenset(("split", "id", "subset"))
SHARED = ("prompt", *sorted(NAMES))  # read in every layout
ASKED = ("system", "system_prompt", "history", "input", "tools")  # say what was asked, beside the prompt
TABLE = ("annotations", "truth_1", "truth_2", "truth_preference", "pair_id")
RANKS = {"rank": 1, "ranks": 1, "ranking": 1, "scores": -1, "score": -1}  # column of an order: 1 where low is good


@dataclass(frozen=True)
class Layout:
    """One layout.

    Attributes:
        name: what errors and pages call it.
        needs: the columns that recognise it, all of which a row has.
        uses: further columns that it reads, besides SHARED.
        read: a row and its place to the rows as read, one a pair; raises DataError.
        example: a row of it.
    """

    name: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    read: Callable[[Row, Place], list[Row]]
    example: Mapping[str, Any]

    @cached_property
    def columns(self) -> set[str]:
        """All columns that it reads."""
        return {*self.needs, *self.uses, *SHARED}


def recognise(row: Row, place: Place) -> Layout:
    """The one layout that a row is in. Raises DataError saying which were tried, and why each does not fit."""
    fitting = [layout for layout in LAYOUTS if row.keys() >= set(layout.needs)]
    if len(fitting) > 1:  # a table of several layouts is full of nulls
        fitting = [layout for layout in fitting if all(row[column] is not None for column in layout.needs)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        problem = f"its columns {', '.join(row)} fit more than one layout: {', '.join(each.name for each in fitting)}"
        raise DataError(place, problem, "Leave out the columns of all but one: columns={'their name': None}")
    raise DataError(place, *unclear(row))


def refuse_part_of_prompt(row: Row, layout: Layout, place: Place) -> None:
    """Raise DataError for a column that says what the model was asked where the layout does not read it."""
    for column in ASKED:
        if column not in layout.columns and row.get(column):
            problem = f"a layout of {layout.name} does not read it, and it says what was asked"
            remedy = f"Put it into the messages of the prompt, or leave it out: columns={{'{column}': None}}"
            raise DataError(place.at(column), problem, remedy)


def unclear(row: Row) -> tuple[str, str]:
    """Why no layout fits a row of these columns, and what to do; those that come nearest are named first."""
    missing = {layout.name: [column for column in layout.needs if column not in row] for layout in LAYOUTS}
    ordered = sorted(LAYOUTS, key=lambda layout: len(missing[layout.name]) / len(layout.needs))
    tried = "; ".join(f"{layout.name} lacks {' and '.join(missing[layout.name])}" for layout in ordered)
    names = shown(", ".join(map(str, row))) if len(row) > 20 else ", ".join(map(str, row))
    remedy = "Name the columns so, or say which is which, as in columns={'question': 'prompt'}; see data/README.md"
    return f"its columns ({names}) are those of no layout. Tried: {tried}", remedy


# --- values -----------------------------------------------------------------------------------------------------------


def from_text(row: Mapping[str, str]) -> Row:
    """A row of csv, whose cells are texts: messages and all that is no text of a pair are read as JSON writes them.

    Names (`id`, `subset`, `split`) stay as they are written: 1e5 and 1.10 are no numbers there.
    """
    kept = {column: row[column] if row[column].strip() else None for column in NAMES & row.keys()}
    return kept | {
        column: _of_cell(cell) if column not in TEXTS or WRITTEN_MESSAGES.match(cell) else cell
        for column, cell in row.items()
        if column not in NAMES
    }


def _of_cell(cell: str) -> Any:
    if not cell.strip():
        return None
    try:
        return json.loads(cell.lower() if cell.lower() in ("true", "false") else cell)
    except (ValueError, RecursionError):
        return cell


def _label(row: Row, place: Place, columns: Mapping[str, str] = LABELS) -> Row:
    found = [column for column in columns if row.get(column) is not None]
    if len(found) > 1:
        problem = f"labels in {' and in '.join(found)}"
        raise DataError(place, problem, f"Say which not to read, as in columns={{'{found[1]}': None}}")
    column = found[0] if found else next(iter(columns))
    return {"label": row.get(column), "label_kind": columns[column], "label_column": column}


def _by_name(ratings: Any, place: Place) -> Row:
    """Ratings by the name of their attribute, empty where there are none."""
    if not isinstance(ratings, Mapping | None):
        raise DataError(place, f"{shown(ratings)} does not map attributes", "Give {helpfulness: 3, ...}")
    return dict(ratings or {})


def _scores(row: Row, names: Mapping[str, str]) -> Row:
    return {ours: row[theirs] for theirs, ours in names.items() if row.get(theirs) is not None}


# --- the layouts ------------------------------------------------------------------------------------------------------


def _by_number(row: Row, place: Place) -> list[Row]:
    extras = {side: row.get(f"extras_{side}") for side in "12"}  # of a table that we wrote
    answers = {f"response_{side}": Answer(row[f"response_{side}"], own) for side, own in extras.items() if own}
    pair = two_responses(row | answers, place, "response_1", "response_2")
    for column in ("ratings_1", "ratings_2"):
        _by_name(row.get(column), place.at(column))
    kept = {name: row[name] for name in ("ratings_1", "ratings_2", "score_1", "score_2", *TABLE) if name in row}
    own_name = kept.get("pair_id") not in (None, pair_id(pair["prompt"], pair["response_1"], pair["response_2"]))
    if own_name:
        del kept["pair_id"]
    note = {"note": "pair_id not used, for it is computed"} if own_name else {}
    return [pair | kept | _label(row, place) | note]


def _by_letter(first: str, second: str) -> Callable[[Row, Place], list[Row]]:
    def read(row: Row, place: Place) -> list[Row]:
        scores = _scores(row, {"score_a": "score_1", "score_b": "score_2"})
        return [two_responses(row, place, first, second) | scores | _label(row, place)]

    return read


def _by_choice(row: Row, place: Place) -> list[Row]:
    pair, strength = two_responses(row, place, "chosen", "rejected"), row.get("strength")
    if strength is None:
        made = better_first(pair) | UNKNOWN_STRENGTH
    elif isinstance(strength, bool) or not isinstance(strength, int | float) or strength not in (1, 2, 3):
        raise DataError(place.at("strength"), f"{shown(strength)} is not a strength", "Use 1, 2 or 3; leave ties out")
    else:
        made = better_first(pair, int(strength))
    sides = (2, 1) if made["label"] > 0 else (1, 2)
    names = dict(zip(("score_chosen", "score_rejected"), sides, strict=True))
    return [made | _scores(row, {name: f"{BESIDE}{side}" for name, side in names.items()})]


def _by_rejection(row: Row, place: Place) -> list[Row]:
    given = row["messages"]
    context, _ = ending(given, place.at("messages"))
    if not context:
        raise DataError(place.at("messages"), "one message alone", "Give the conversation with its chosen answer")
    both = {"prompt": given[:-1], "messages": given[-1], "rejected_response": row["rejected_response"]}
    return [better_first(two_responses(both, place, "messages", "rejected_response")) | UNKNOWN_STRENGTH]


def _by_conversation(row: Row, place: Place) -> list[Row]:
    return [better_first(two_responses(row, place, "messages", "rejected_messages")) | UNKNOWN_STRENGTH]


def _by_rank(row: Row, place: Place) -> list[Row]:
    name = "completions" if "completions" in row else "responses"
    responses = row[name]
    if not isinstance(responses, Sequence) or isinstance(responses, str) or len(responses) < 2:
        problem = f"{shown(responses)} is not a list of two or more responses"
        raise DataError(place.at(name), problem, "Give the list")
    column = _label(row, place, dict.fromkeys(RANKS, ""))["label_column"]
    order = row.get(column)
    if not isinstance(order, Sequence) or isinstance(order, str) or len(order) != len(responses):
        problem = f"{shown(order)} is not one number for each of {len(responses)} {name}"
        raise DataError(place.at(column), problem, "Give ranks (1 is best) or scores (higher is better)")
    numbers = [RANKS[column] * check_number(value, (-math.inf, math.inf), place.at(column)) for value in order]
    if RANKS[column] == 1 and sorted(numbers) == list(range(len(numbers))):
        problem = f"{shown(order)} may be ranks, or an order of indices, and these say opposite things"
        remedy = "Give ranks, one for each response, that count from 1 (1 is best), or scores (higher is better)"
        raise DataError(place.at(column), problem, remedy)
    return _all_pairs(row, place, responses, numbers)


def _all_pairs(row: Row, place: Place, responses: Sequence[Any], worse: Sequence[float]) -> list[Row]:
    """Every pair of the responses to a prompt; one with the lower number is better, equal ones tie."""
    pairs = []
    for i, j in itertools.combinations(range(len(responses)), 2):
        better, other = (i, j) if worse[i] <= worse[j] else (j, i)
        sides = {"prompt": row["prompt"], "completions": responses[better], "others": responses[other]}
        pair = two_responses(sides, place, "completions", "others")
        pairs.append(better_first(pair, int(worse[i] != worse[j])) | UNKNOWN_STRENGTH)
    return pairs


def _ultrafeedback(row: Row, place: Place) -> list[Row]:
    given, place = row["completions"], place.at("completions")
    if not isinstance(given, Sequence) or len(given) < 2 or not all(isinstance(each, Mapping) for each in given):
        raise DataError(
            place, f"{shown(given)} is not a list of two or more rated completions", "Give each response and its score"
        )
    column = next((name for name in ("fine-grained_score", "overall_score") if given[0].get(name) is not None), None)
    if column is None:
        raise DataError(place, "neither fine-grained_score nor overall_score", "Give one of them to each completion")
    scores = [
        -check_number(each.get(column), (-math.inf, math.inf), place.at(f"completions.{column}")) for each in given
    ]
    named = {"prompt": row["instruction"], "completions": None}
    pairs = _all_pairs(named, place, [each.get("response") for each in given], scores)
    return [pair | {"note": f"{pair['note']}; the better one has more {column}"} for pair in pairs]


def _helpsteer3(row: Row, place: Place) -> list[Row]:
    pair = two_responses(row, place, "response1", "response2", prompt="context")
    votes = row.get("individual_preferences") or []
    if not isinstance(votes, Sequence) or not all(isinstance(vote, Mapping) for vote in votes):
        raise DataError(place.at("individual_preferences"), f"{shown(votes)} are no preferences", "Give a list of them")
    annotations = [
        {"preference": vote.get("score"), "justification": vote.get("reasoning")}
        for vote in votes
        if vote.get("score") is not None
    ]
    given, column = row.get("overall_preference"), "overall_preference"
    preference = None if given is None else check_preference(given, place.at(column))
    label = {"label": preference, "label_kind": "chosen", "label_column": column}
    return [pair | label | {"annotations": annotations or None}]


def _rated(column: str) -> Callable[[Row, Place], list[Row]]:
    def read(row: Row, place: Place) -> list[Row]:
        named = {name: row[name] for name in ATTRIBUTES if row.get(name) is not None}
        ratings = _by_name(row.get("ratings"), place.at("ratings")) | named
        scores = [name for name in ("score", "rating") if row.get(name) is not None]
        if len(scores) > 1 or not (scores or ratings):
            problem = f"{' and '.join(scores) or 'neither score nor ratings'} beside a single response"
            raise DataError(place, problem, "Give it one score, or ratings by name")
        single = one_response(row, place, column) | {"response_2": None}
        return [single | {"ratings_1": ratings or None, "score_1": row[scores[0]] if scores else None}]

    return read


_ASKED = [{"role": "user", "content": "Name a warm colour."}]
LAYOUTS = (
    Layout(
        "chosen and rejected", ("chosen", "rejected"), ("strength", "score_chosen", "score_rejected"), _by_choice,
        {"prompt": "Name a warm colour.", "chosen": "Red.", "rejected": "Blue, I think.", "strength": 2},
    ),
    Layout(
        "two responses", ("response_1", "response_2"),
        ("ratings_1", "ratings_2", "score_1", "score_2", *LABELS, *TABLE, "extras_1", "extras_2"), _by_number,
        {"prompt": "Name a warm colour.", "response_1": "Red.", "response_2": "Blue, I think.", "preference": -2},
    ),
    Layout(
        "responses a and b", ("response_a", "response_b"), ("score_a", "score_b", *LABELS),
        _by_letter("response_a", "response_b"),
        {"prompt": "Name a warm colour.", "response_a": "Red.", "response_b": "Blue.", "winner": "a"},
    ),
    Layout(
        "conversations a and b", ("conversation_a", "conversation_b"), tuple(LABELS),
        _by_letter("conversation_a", "conversation_b"),
        {"conversation_a": [*_ASKED, {"role": "assistant", "content": "Red."}],
         "conversation_b": [*_ASKED, {"role": "assistant", "content": "Blue."}], "winner": "model_a"},
    ),
    Layout(
        "messages and a rejected response", ("messages", "rejected_response"), (), _by_rejection,
        {"messages": [*_ASKED, {"role": "assistant", "content": "Red."}], "rejected_response": "Blue."},
    ),
    Layout(
        "messages and rejected messages", ("messages", "rejected_messages"), (), _by_conversation,
        {"messages": [*_ASKED, {"role": "assistant", "content": "Red."}],
         "rejected_messages": [*_ASKED, {"role": "assistant", "content": "Blue."}]},
    ),
    Layout(
        "ranked completions", ("prompt", "completions"), tuple(RANKS), _by_rank,
        {"prompt": "Name a warm colour.", "completions": ["Blue.", "Red.", "Pink."], "ranks": [3, 1, 2]},
    ),
    Layout(
        "ranked responses", ("prompt", "responses"), tuple(RANKS), _by_rank,
        {"prompt": "Name a warm colour.", "responses": ["Blue.", "Red."], "scores": [0.1, 0.7]},
    ),
    Layout(
        "UltraFeedback", ("instruction", "completions"), (), _ultrafeedback,
        {"instruction": "Name a warm colour.", "completions": [{"response": "Red.", "fine-grained_score": 4.5},
                                                              {"response": "Blue.", "fine-grained_score": 1.75}]},
    ),
    Layout(
        "HelpSteer3", ("context", "response1", "response2"), ("overall_preference", "individual_preferences"),
        _helpsteer3,
        {"context": _ASKED, "response1": "Blue.", "response2": "Red.", "overall_preference": 2,
         "individual_preferences": [{"score": 2, "reasoning": "Blue is a cold colour."}]},
    ),
    Layout(
        "rated responses", ("prompt", "response"), ("score", "rating", "ratings", *ATTRIBUTES), _rated("response"),
        {"prompt": "Name a warm colour.", "response": "Red.", "helpfulness": 4, "verbosity": 0},
    ),
    Layout(
        "rated conversations", ("messages", "score"), (), _rated("messages"),
        {"messages": [*_ASKED, {"role": "assistant", "content": "Red."}], "score": 4},
    ),
)  # fmt: skip
COLUMNS = frozenset().union(*(layout.columns for layout in LAYOUTS))
