"""The files of UKPConvArg1, in either layout, as checked comparisons."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from rmlib.records.errors import DataError, Place, check_number, check_string, check_text, shown
from rmlib.records.files import contents, ending_of, first_rows, placed_rows, read_bytes, text_of, value_of

PREFERENCES = {"a1": -1, "equal": 0, "a2": 1}
VOTE_ELEMENTS = {"worker": "turkID", "value": "value", "reason": "reason", "competence": "turkCompetence"}

Texts = dict[tuple[str, str], str]  # of an argument, by topic and id


class Vote(NamedTuple):
    """One worker's vote: -1 for argument 1, 0 for equal, +1 for argument 2; competence (0..1) as published."""

    worker: str
    preference: int
    reason: str
    competence: float


class Comparison(NamedTuple):
    """Two arguments on one side of a debate, with their votes; gold is -1, 0, +1, or None where none was published."""

    place: Place
    topic: str
    name: str  # the id of the pair
    arguments: tuple[str, str]
    texts: tuple[str, str]
    gold: int | None
    votes: list[Vote]

    @property
    def debate(self) -> str:
        return self.topic.rpartition("_")[0]


def is_layout(folder: Path) -> bool:
    """Whether the folder holds arguments with pairs of them, or XML files of such pairs and no table of pairs."""
    pairs = _present(folder, "pairs.jsonl")
    if pairs is not None and _present(folder, "arguments.jsonl") is not None:
        return all({"arg1", "arg2"} <= row.keys() for row in first_rows(pairs, 1) or [{}])
    if any(ending_of(path) for path in folder.iterdir()):
        return False
    return any("<annotatedArgumentPair" in _text(path) for path in _xml_paths(folder)[:1])


def present(folder: Path) -> list[Path]:
    """Every file of either layout that the folder holds."""
    named = (_present(folder, name) for name in ("arguments.jsonl", "pairs.jsonl", "strict.csv"))
    return [*filter(None, named), *_xml_paths(folder)]


def read(folder: Path) -> list[Comparison]:
    """Every pair of the folder in the order of the files, XML files by topic. Raises DataError (file, row, field)."""
    texts: Texts = {}
    comparisons: dict[str, Comparison] = {}
    for place, row in _rows(folder, texts):
        comparison = _comparison(row, texts, place)
        if comparison.name in comparisons:
            raise DataError(place.at("id"), f"the pair {shown(comparison.name)} occurs twice", "Remove one of the two")
        comparisons[comparison.name] = comparison
    return list(comparisons.values())


def read_strict(folder: Path, *, needed: bool) -> set[str]:
    """Ids of the pairs of the strict set, from `strict.csv` (topic, id, label); none where it is absent and not needed.

    Ids alone tell the pairs: the release spells a topic differently in its two sets. Raises DataError (file, row).
    """
    path = _present(folder, "strict.csv")
    if path is None:
        if needed:
            remedy = "Add one (topic, id, label), or load the release's folder of strict XML files with subset 'all'"
            raise DataError(Place(str(folder)), "no strict.csv or strict.csv.gz tells the strict set", remedy)
        return set()
    rows = csv.DictReader(io.StringIO(_text(path)), strict=True)
    names = set()
    try:
        for row in rows:
            place = Place(path.name, rows.line_num)
            _preference(value_of(row, "label", place), place.at("label"))
            names.add(text_of(row, "id", place))
    except csv.Error as error:
        raise DataError(Place(path.name, rows.line_num), f"not CSV ({error})", "Fetch the file again") from error
    return names


def _present(folder: Path, name: str) -> Path | None:
    return next((folder / (name + end) for end in ("", ".gz") if (folder / (name + end)).is_file()), None)


def _xml_paths(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if p.name.endswith((".xml", ".xml.gz")) and p.is_file()), key=_topic)


def _topic(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".xml")


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(Place(path.name), f"not UTF-8 ({error})", "Fetch the file again or convert it") from error


def _rows(folder: Path, texts: Texts) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows as pairs.jsonl has them, each with its place; fills in the texts of the arguments."""
    arguments, pairs = _present(folder, "arguments.jsonl"), _present(folder, "pairs.jsonl")
    if arguments is not None and pairs is not None:
        for place, row in placed_rows(arguments):
            _add_argument(row, texts, place)
        yield from placed_rows(pairs)
    elif xml_paths := _xml_paths(folder):
        for path in xml_paths:
            yield from _xml_rows(path, texts)
    else:
        problem = f"neither arguments.jsonl with pairs.jsonl nor XML files; the folder holds {contents(folder)}"
        raise DataError(Place(str(folder)), problem, "Add what is missing (plain or gzip), or name another folder")


def _add_argument(row: Mapping[str, Any], texts: Texts, place: Place) -> None:
    topic, name, text = (text_of(row, field, place) for field in ("topic", "id", "text"))
    if (topic, name) in texts:
        raise DataError(place.at("id"), f"the argument {shown(name)} occurs twice in its topic", "Remove one")
    texts[topic, name] = _line_feeds(text)


def _xml_rows(path: Path, texts: Texts) -> Iterator[tuple[Place, dict[str, Any]]]:
    topic = _topic(path)
    for number, pair in enumerate(_parsed(path), start=1):
        place = Place(path.name, number)
        if pair.tag != "annotatedArgumentPair":
            raise DataError(place, f"unexpected element <{pair.tag}>", "Give a list of <annotatedArgumentPair>")
        for side in ("arg1", "arg2"):
            name = _content(pair, f"{side}/id", place)
            text = _line_feeds(check_text(_content(pair, f"{side}/text", place), place.at(f"{side}/text")))
            if texts.setdefault((topic, name), text) != text:
                raise DataError(place.at(side), f"another text of {shown(name)} came before", "Fetch the file again")
        names = {"id": "id", "arg1": "arg1/id", "arg2": "arg2/id"}
        row: dict[str, Any] = {field: _content(pair, element, place) for field, element in names.items()}
        votes = pair.findall("mTurkAssignments/mTurkAssignment")
        row["votes"] = [{f: _content(vote, e, place) for f, e in VOTE_ELEMENTS.items()} for vote in votes]
        yield place, row | {"topic": topic, "gold": pair.findtext("goldLabel")}


def _parsed(path: Path) -> ElementTree.Element:
    """The root of an XML file. A document type is refused: entities defined there can grow without bound."""
    text = _text(path)
    if "<!DOCTYPE" in text:
        raise DataError(Place(path.name), "the file declares a document type", "Remove it: the release has none")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(Place(path.name), f"not well-formed XML ({error})", "Fetch the file again") from error


def _content(element: ElementTree.Element, path: str, place: Place) -> str:
    found = element.find(path)
    if found is None:
        raise DataError(place.at(path), "the element is missing", "Add it, or fetch the file again")
    return found.text or ""


def _comparison(row: Mapping[str, Any], texts: Texts, place: Place) -> Comparison:
    topic, name, first, second = (text_of(row, field, place) for field in ("topic", "id", "arg1", "arg2"))
    if not all(topic.rpartition("_")):
        raise DataError(place.at("topic"), f"{shown(topic)} is not <debate>_<side>", "Name it as the release does")
    for field, argument in {"arg1": first, "arg2": second}.items():
        if (topic, argument) not in texts:
            raise DataError(place.at(field), f"no text for the argument {shown(argument)}", "Add it to the arguments")
    votes, gold = value_of(row, "votes", place), value_of(row, "gold", place)
    if not isinstance(votes, list) or not votes:
        raise DataError(place.at("votes"), f"{shown(votes)} is not a list of votes", "Give at least one vote")
    return Comparison(
        place,
        topic,
        name,
        (first, second),
        (texts[topic, first], texts[topic, second]),
        None if gold is None else _preference(gold, place.at("gold")),
        [_vote(vote, place.at(f"votes[{index}]")) for index, vote in enumerate(votes)],
    )


def _vote(given: Any, place: Place) -> Vote:
    if not isinstance(given, Mapping) or not set(VOTE_ELEMENTS) <= set(given):
        raise DataError(place, f"{shown(given)} is not a vote", f"Give each vote {', '.join(VOTE_ELEMENTS)}")
    at = {field: place.at(f"{place.field}.{field}") for field in VOTE_ELEMENTS}
    return Vote(
        check_text(given["worker"], at["worker"]),
        _preference(given["value"], at["value"]),
        _line_feeds(check_string(given["reason"], at["reason"])),
        _competence(given["competence"], at["competence"]),
    )


def _preference(value: Any, place: Place) -> int:
    if not isinstance(value, str) or value not in PREFERENCES:
        raise DataError(place, f"{shown(value)} is not a vote", f"Use one of {', '.join(PREFERENCES)}")
    return PREFERENCES[value]


def _competence(value: Any, place: Place) -> float:
    """A number in 0..1, which the files write as a text."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError as error:
            raise DataError(place, f"{shown(value)} is not a number", "Give one in 0 to 1") from error
    return check_number(value, (0, 1), place)


def _line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
