"""Broken files in the layout of HelpSteer2: a named error or a correct table, never a silently wrong one."""

import codecs
import copy
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from released import (
    DISAGREEMENTS,
    NAMES,
    PARTS,
    PREFERENCES,
    TRAIN,
    UNDECIDED,
    Row,
    Rows,
    write,
    write_release,
)

from rmlib import sources
from rmlib.pairs import ATTRIBUTES, DataError
from rmlib.records.errors import shown
from rmlib.sources import helpsteer2


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path_factory.mktemp("runs")))


@pytest.fixture
def official(tmp_path: Path) -> Path:
    return write_release(tmp_path / "release")


# --- one fault at a time ---


def edited(rows: Rows, index: int, **changes: Any) -> Rows:
    return [*rows[:index], rows[index] | changes, *rows[index + 1 :]]


def without(rows: Rows, index: int, field: str) -> Rows:
    return [{k: v for k, v in row.items() if (i, k) != (index, field)} for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "place", "says"),
    [
        (without(TRAIN, 3, "coherence"), (4, "coherence"), "missing"),
        (without(TRAIN, 0, "response"), (1, "response"), "missing"),
        (edited(TRAIN, 1, helpfulness=5), (2, "helpfulness"), "5 is outside 0 to 4"),
        (edited(TRAIN, 1, helpfulness=-1), (2, "helpfulness"), "outside"),
        (edited(TRAIN, 5, verbosity=True), (6, "verbosity"), "True is not a finite number"),
        (edited(TRAIN, 5, verbosity="3"), (6, "verbosity"), "'3' is not a finite number"),
        (edited(TRAIN, 5, verbosity=None), (6, "verbosity"), "None is not a finite number"),
        (edited(TRAIN, 5, verbosity=float("nan")), (6, None), "NaN is not JSON"),
        (edited(TRAIN, 2, response=" "), (3, "response"), "empty"),
        (edited(edited(TRAIN, 0, prompt=""), 1, prompt=""), (1, "prompt"), "empty"),
        (edited(TRAIN, 2, prompt=["Hi"]), (3, "prompt"), "not a text"),
        (TRAIN[:5], (5, None), "odd number of rows"),
        ([TRAIN[0], *TRAIN[2:]], (2, "prompt"), "differs from the row before"),
        (edited(edited(TRAIN, 0, prompt="Hi\n<extra_id_1>Assistant\nYes"), 1, prompt="Hi\n<extra_id_1>Assistant\nYes"),
         (1, "prompt"), "does not end with a user's text"),
        ([], (None, None), "the file is empty"),
    ],
)  # fmt: skip
def test_a_bad_rating_row_is_refused_with_file_row_and_field(
    official: Path, rows: Rows, place: tuple[Any, ...], says: str
) -> None:
    write(official / "train.jsonl.gz", rows)
    with pytest.raises(DataError) as caught:
        helpsteer2.load(official)
    assert caught.value.place == ("train.jsonl.gz", *place)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "place", "says"),
    [
        (edited(PREFERENCES, 2, preference_strength=4), (3, "preference_strength"), "outside -3 to 3"),
        (edited(PREFERENCES, 2, preference_strength=-100), (3, "preference_strength"), "outside -3 to 3"),
        (edited(PREFERENCES, 2, preference_strength=1.5), (3, "preference_strength"), "not a whole number"),
        (edited(PREFERENCES, 2, preference_strength=None), (3, "preference_strength"), "not a finite number"),
        (without(PREFERENCES, 0, "preference_strength"), (1, "preference_strength"), "missing"),
        (edited(PREFERENCES, 0, split="test"), (1, "split"), "not a split"),
        (without(PREFERENCES, 1, "response_2"), (2, "response_2"), "missing"),
        (edited(PREFERENCES, 0, all_preferences_unprocessed=[{"strength": 9}]),
         (1, "all_preferences_unprocessed[0].strength"), "outside"),
        (edited(PREFERENCES, 0, three_most_similar_preferences=[{"strength": 1}, {}]),
         (1, "three_most_similar_preferences[1].strength"), "not a finite number"),
        (edited(PREFERENCES, 0, three_most_similar_preferences="none"),
         (1, "three_most_similar_preferences"), "not a list of objects"),
    ],
)  # fmt: skip
def test_a_bad_preference_row_is_refused_with_file_row_and_field(
    official: Path, rows: Rows, place: tuple[Any, ...], says: str
) -> None:
    write(official / "preference" / "preference.jsonl.gz", rows)
    with pytest.raises(DataError) as caught:
        helpsteer2.load(official)
    assert caught.value.place == ("preference.jsonl.gz", *place)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "place", "says"),
    [
        (edited(DISAGREEMENTS, 1, coherence=4), (2, "coherence"), "4 is not a list of ratings"),
        (edited(DISAGREEMENTS, 1, coherence=None), (2, "coherence"), "None is not a list of ratings"),
        (edited(DISAGREEMENTS, 1, coherence=[4, 5]), (2, "coherence[1]"), "outside 0 to 4"),
        (edited(DISAGREEMENTS, 1, coherence=[True, 4]), (2, "coherence[0]"), "not a finite number"),
        (edited(DISAGREEMENTS, 1, coherence=[4, None]), (2, "coherence[1]"), "not a finite number"),
        (edited(DISAGREEMENTS, 1, coherence=[[4], 4]), (2, "coherence[0]"), "not a finite number"),
        (edited(DISAGREEMENTS, 2, response=""), (3, "response"), "empty"),
        (edited(DISAGREEMENTS, 2, prompt="Hi\n<extra_id_1>Assistant\nYes"), (3, "prompt"), "does not end"),
        (without(DISAGREEMENTS, 7, "verbosity"), (8, "verbosity"), "missing"),
        ([], (None, None), "the file is empty"),
    ],
)  # fmt: skip
def test_a_bad_row_of_disagreements_is_refused_with_file_row_and_field(
    official: Path, rows: Rows, place: tuple[Any, ...], says: str
) -> None:
    write_release(official, disagreements=rows)
    with pytest.raises(DataError) as caught:
        helpsteer2.load(official)
    assert caught.value.place == ("disagreements.jsonl.gz", *place)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [(b'{"prompt": "Name', "not a line of JSON"), (b"[1, 2]", "not a JSON object"), (b"", "not a line of JSON"),
     (b'{"prompt": "\xff"}', "not a line of JSON"), (b"[" * 100_000, "not a line of JSON")],
)  # fmt: skip
def test_a_line_that_is_not_json_is_named(official: Path, line: bytes, says: str) -> None:
    lines = gzip.decompress((official / "train.jsonl.gz").read_bytes()).split(b"\n")
    (official / "train.jsonl.gz").write_bytes(gzip.compress(b"\n".join([*lines[:3], line, *lines[4:]])))
    with pytest.raises(DataError, match=f"^train.jsonl.gz, row 4: .*{says}"):
        helpsteer2.load(official)


def test_a_folder_without_the_files_says_what_it_holds(official: Path, tmp_path: Path) -> None:
    (official / "validation.jsonl.gz").rename(official / "valid.jsonl.gz")
    with pytest.raises(DataError, match=r"no validation.jsonl.gz or .*holds disagreements/, preference/, train.jsonl"):
        sources.load(official)
    with pytest.raises(DataError, match="there is no such folder"):
        helpsteer2.load(tmp_path / "absent")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_compressed_file_is_refused_or_read_as_it_was(official: Path, data: st.DataObject) -> None:
    whole = gzip.compress("".join(json.dumps(row) + "\n" for row in TRAIN).encode(), mtime=0)
    position = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:position]
    else:
        damaged = whole[:position] + bytes([data.draw(st.integers(0, 255))]) + whole[position + 1 :]
    (official / "train.jsonl.gz").write_bytes(damaged)
    try:
        made = helpsteer2.load(official)
    except DataError as error:
        assert error.place.origin == "train.jsonl.gz"
    else:
        (official / "train.jsonl.gz").write_bytes(whole)
        assert made.to_list() == helpsteer2.load(official).to_list()


JUNK: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-2, 6) | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
)


def acceptable(rows: Rows) -> bool:
    """The rule in words: pairs of rows, equal prompts, filled texts, ratings that are numbers in 0-4."""

    def number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 4

    def text(value: Any) -> bool:
        return isinstance(value, str) and value.strip() != ""

    fields = all(text(r.get("prompt")) and text(r.get("response")) and all(number(r.get(a)) for a in ATTRIBUTES)
                 for r in rows)  # fmt: skip
    matched = zip(rows[::2], rows[1::2], strict=False)
    return fields and len(rows) % 2 == 0 and all(first["prompt"] == second["prompt"] for first, second in matched)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_changed_rows_are_refused_exactly_when_they_break_the_rule_and_else_read_as_written(
    official: Path, data: st.DataObject
) -> None:
    rows = copy.deepcopy(TRAIN)
    index = data.draw(st.integers(0, len(rows) - 1))
    field = data.draw(st.sampled_from(sorted(rows[0])))
    match data.draw(st.sampled_from(["value", "field", "remove", "repeat", "exchange"])):
        case "value":
            rows[index][field] = data.draw(JUNK)
        case "field":
            del rows[index][field]
        case "remove":
            del rows[index]
        case "repeat":
            rows.insert(index, rows[index])
        case "exchange":
            other = data.draw(st.integers(0, len(rows) - 1))
            rows[index], rows[other] = rows[other], rows[index]
    for part in ("preference", "disagreements"):
        (official / NAMES[part]).unlink(missing_ok=True)
    write(official / "train.jsonl.gz", rows)
    if not acceptable(rows):
        with pytest.raises(DataError, match=r"^train\.jsonl\.gz"):
            helpsteer2.load(official)
        return
    made = [r for r in helpsteer2.load(official).to_list() if r["split"] == "train"]
    read = [(r[f"response_{side}"], *r[f"ratings_{side}"].values()) for r in made for side in (1, 2)]
    assert read == [(r["response"], *(r[a] for a in ATTRIBUTES)) for r in rows]
    assert [r["prompt"][0]["content"] for r in made] == [r["prompt"].split("\n<extra_id_1>")[0] for r in rows[::2]]


# --- any fault anywhere: either an error that names the place, or every difference is explained ---

WHOLE: dict[str, Rows] = PARTS | {"preference": [*PREFERENCES, UNDECIDED]}  # every pair has preferences and ratings
# Nothing of this is a valid value of any field of the layout, but for free texts.
TEXTS = st.sampled_from(["", " \n\t", "3", "half \ud83d", "\udc00"])
OTHERS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-7, 5, 10**30, -(10**400), -0.5, 4.001, 1e308]),
    st.recursive(st.integers() | st.text(max_size=3), lambda inner: st.dictionaries(st.text(max_size=3), inner) |
                 st.lists(inner, min_size=6), max_leaves=8).filter(lambda value: isinstance(value, dict | list)),
)  # fmt: skip
FREE_TEXTS = ("statement", "elaboration", "justification")
RAW = "all_preferences_unprocessed"


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to everything inside a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inner for found in [(*path, key), *spots(item, (*path, key))]]


def break_value(row: Row, data: st.DataObject) -> None:
    """Replace, remove, add, repeat or empty one thing somewhere inside a row, so that it is in the layout no more.

    Another free text, or another number of raw annotations, would be in the layout still.
    """
    *way, last = data.draw(st.sampled_from(spots(row)))
    holder: Any = row
    for key in way:
        holder = holder[key]
    match data.draw(st.sampled_from(["replace", "remove", "add", "repeat", "empty"])):
        case "remove" if way != [RAW]:
            del holder[last]
        case "add" if isinstance(holder, dict):
            names = st.text(max_size=5).filter(lambda name: name not in holder)
            holder[data.draw(names)] = data.draw(OTHERS | TEXTS)
        case "repeat" if isinstance(holder, list) and way != [RAW]:
            holder.insert(last, holder[last])
        case "empty" if isinstance(holder[last], list | str) and last not in FREE_TEXTS:
            holder[last] = type(holder[last])()
        case _:
            holder[last] = data.draw(OTHERS if last in FREE_TEXTS else OTHERS | TEXTS)


def break_rows(rows: Rows, data: st.DataObject) -> None:
    """Remove, repeat, exchange rows, or let a text match nothing."""
    index, other = (data.draw(st.integers(0, len(rows) - 1)) for _ in range(2))
    match data.draw(st.sampled_from(["remove", "repeat", "repeat pair", "exchange", "unmatched", "prompt"])):
        case "remove":
            del rows[index]
        case "repeat":
            rows.insert(other, rows[index])
        case "repeat pair":
            rows += rows[index - index % 2 :][:2]
        case "exchange":
            rows[index], rows[other] = rows[other], rows[index]
        case "unmatched":
            name = "response" if "response" in rows[0] else "response_2"
            rows[index][name] += data.draw(st.sampled_from([" ", ".", "\u00e9", "\u0301", "\U0001f600"]))
        case "prompt":
            rows[index]["prompt"] = data.draw(st.sampled_from(["", "Why?", "\n<extra_id_1>Assistant\nNo."])) + "X"


def by_texts(table: Any) -> dict[tuple[str, frozenset[str]], dict[str, Any]]:
    """What the table says of each pair, whichever of its responses comes first."""
    said = {}
    for pair in table.to_list():
        names = {"1": pair["response_1"], "2": pair["response_2"]}
        first = min(names, key=lambda side: names[side])
        sign, second = (1, "2") if first == "1" else (-1, "1")
        annotations = sorted(
            (str(a["ratings_" + first]), str(a["ratings_" + second]), str(a["preference"] and (
                a["preference"] if a["preference"] == -100 else sign * a["preference"])),
             str(a["statement"]), str(a["elaboration"]), str(a["justification"]))
            for a in pair["annotations"] or ()
        )  # fmt: skip
        preference = None if pair["preference"] is None else sign * pair["preference"]
        said[pair["prompt"][-1]["content"], frozenset(names.values())] = {
            "split": pair["split"], "prompt": pair["prompt"], "preference": preference, "annotations": annotations,
            "ratings": (pair["ratings_" + first], pair["ratings_" + second]),
        }  # fmt: skip
    return said


def check_against(expected: dict[Any, Any], folder: Path, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    """The property: an error names the broken file and the row; else whatever differs is warned of."""
    caplog.clear()
    try:
        made = by_texts(helpsteer2.load(folder))
    except DataError as error:
        assert error.place.origin == Path(broken).name and error.place.row is not None
        str(error).encode()
        return
    for texts in made.keys() & expected.keys():  # ratings and preferences are those written, or none at all
        assert made[texts]["ratings"] == expected[texts]["ratings"]
        assert made[texts]["preference"] in (expected[texts]["preference"], None)
    assert caplog.messages or made == expected


@dataclass(frozen=True)
class Whole:
    """A folder in which every pair has a preference and every response its annotations, and what the table says."""

    folder: Path
    said: dict[Any, Any] = field(repr=False)


@pytest.fixture
def whole(tmp_path: Path) -> Whole:
    folder = write_release(tmp_path / "whole", **WHOLE)
    return Whole(folder, by_texts(helpsteer2.load(folder)))


ANYWHERE = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ANYWHERE
@given(st.data(), st.sampled_from(list(NAMES)), st.integers(1, 3))
def test_a_fault_inside_rows_is_named_or_changes_nothing_unsaid(
    whole: Whole, caplog: pytest.LogCaptureFixture, data: st.DataObject, part: str, faults: int
) -> None:
    folder, expected = whole.folder, whole.said
    rows = copy.deepcopy(WHOLE[part])
    for _ in range(faults):
        break_value(data.draw(st.sampled_from(rows)), data)
    write_release(folder, **WHOLE | {part: rows})
    check_against(expected, folder, NAMES[part], caplog)


@ANYWHERE
@given(st.data(), st.sampled_from(list(NAMES)))
def test_rows_missing_repeated_exchanged_or_unmatched_are_named_or_counted(
    whole: Whole, caplog: pytest.LogCaptureFixture, data: st.DataObject, part: str
) -> None:
    folder, expected = whole.folder, whole.said
    rows = copy.deepcopy(WHOLE[part])
    break_rows(rows, data)
    assume(rows)
    write_release(folder, **WHOLE | {part: rows})
    if part == "preference" and len(rows) < len(WHOLE[part]):  # the layout allows pairs without a preference
        made = by_texts(helpsteer2.load(folder))
        (bare,) = [texts for texts in expected if made[texts]["preference"] is None]
        assert {k: v for k, v in made.items() if k != bare} == {k: v for k, v in expected.items() if k != bare}
        assert made[bare]["ratings"] == expected[bare]["ratings"]
        return
    check_against(expected, folder, NAMES[part], caplog)


BYTES = [
    *(b"\xff", b"\xc3", b"\xed\xa0\xbd", b"\x00", b"\r", b"\r\n", b"\n", b"\n\n", b"\n \n", b"\xef\xbb\xbf"),
    *(b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"0.5", b"\\ud83d", b"\\u0000", b"\xe2\x80\xa8"),
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"null", b'"prompt": "Why?", ', b""),
]


def strictly(line: bytes) -> Row | None:
    """The object on a line by the letter of the format, None where there is none."""

    def refused(name: str) -> None:
        raise ValueError(name)

    try:
        members = json.loads(line.decode(), object_pairs_hook=lambda pairs: pairs, parse_constant=refused)
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and len(row) == len(members) else None


def outcome(folder: Path) -> str | list[dict[str, Any]]:
    """The table, or the error."""
    try:
        return helpsteer2.load(folder).to_list()
    except DataError as error:
        return str(error)


@ANYWHERE
@given(st.data(), st.sampled_from(list(NAMES)))
def test_bytes_matter_only_through_the_json_that_they_make(whole: Whole, data: st.DataObject, part: str) -> None:
    folder = whole.folder
    path = write_release(folder, **WHOLE) / NAMES[part]
    content = gzip.decompress(path.read_bytes())
    start, taken = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 2))
    content = content[:start] + data.draw(st.sampled_from(BYTES)) + content[start + taken :]
    path.write_bytes(gzip.compress(content))
    found = outcome(folder)
    lines = content.removeprefix(codecs.BOM_UTF8).rstrip().split(b"\n")
    rows = [row for line in lines if (row := strictly(line)) is not None]
    if len(rows) < len(lines):
        first_broken = [strictly(line) for line in lines].index(None) + 1
        named = re.match(rf"{path.name}, row (\d+)", str(found))
        assert named is not None and int(named[1]) <= first_broken  # an earlier row may be at fault in another way
    elif "Infinity" not in json.dumps(rows):  # 1e999 is JSON, and what Python writes for it is not
        write(path, rows)
        assert found == outcome(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda whole: whole[:-9], "broken or truncated gzip"),
        (lambda whole: whole + b"<html>", "broken or truncated gzip"),
        (lambda whole: whole + b"\x1f\x8b", "broken or truncated gzip"),
        (lambda whole: gzip.decompress(whole), "broken or truncated gzip"),
        (lambda whole: whole[:-8] + b"\x00" * 8, "broken or truncated gzip"),
        (lambda whole: b"", "the file is empty"),
        (lambda whole: gzip.compress(b"\n \n"), "the file is empty"),
        (lambda whole: gzip.compress(gzip.decompress(whole).decode().encode("utf-16")), "row 1: not a line of JSON"),
        (lambda whole: gzip.compress(gzip.decompress(whole).replace(b"\n", b"\r")), "row 1: not a line of JSON"),
        (lambda whole: gzip.compress(gzip.decompress(whole).replace(b"\n", b"\n\n")), "row 2: not a line of JSON"),
        (lambda whole: gzip.compress(gzip.decompress(whole).replace(b'{"', b'{"a": 1, "a": 2, "', 1)),
         "row 1: not a line of JSON .*the key 'a' occurs twice"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", NAMES)
def test_a_file_that_is_not_the_layout_as_a_whole_is_refused(
    official: Path, part: str, change: Callable[[bytes], bytes], says: str
) -> None:
    path = official / NAMES[part]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=says) as caught:
        helpsteer2.load(official)
    assert caught.value.place.origin == path.name


@pytest.mark.parametrize("part", NAMES)
def test_what_the_formats_allow_changes_nothing(official: Path, part: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = helpsteer2.load(official).to_list()
    path = official / NAMES[part]
    whole = path.read_bytes()
    lines = gzip.decompress(whole)
    first, rest = lines.split(b"\n", 1)
    for same in (
        whole + b"\x00" * 512,  # padding to the block of a tape
        gzip.compress(first + b"\n") + gzip.compress(rest),  # two members
        gzip.compress(lines.replace(b"\n", b"\r\n")),
        gzip.compress(codecs.BOM_UTF8 + lines),
        gzip.compress(lines.rstrip(b"\n")),
        gzip.compress(lines + b"\n \r\n\n"),
        gzip.compress("".join(json.dumps(json.loads(line), ensure_ascii=False) + "\n"
                              for line in lines.splitlines()).encode()),
    ):  # fmt: skip
        path.write_bytes(same)
        assert helpsteer2.load(official).to_list() == expected
    assert not caplog.messages


@pytest.mark.parametrize("part", NAMES)
def test_nesting_at_the_limit_of_the_stack_is_refused_or_passed_over(official: Path, part: str) -> None:
    expected = helpsteer2.load(official).to_list()
    row = PARTS[part][0]
    deepest = {RAW: [{"strength": "HERE"}]} if RAW in row else {"coherence": "HERE"}
    for depth in (50, *range(800, 1_000, 8)):  # what can just be parsed may be too deep to be quoted
        for broken in (deepest, {"more": "HERE"}):
            changed = json.dumps(row | broken).replace('"HERE"', "[" * depth + "]" * depth)
            rest = [json.dumps(other) for other in PARTS[part][1:]]
            (official / NAMES[part]).write_bytes(gzip.compress("\n".join([changed, *rest]).encode(), 1))
            try:
                assert helpsteer2.load(official).to_list() == expected
            except DataError as error:
                assert error.place.row == 1
                assert error.place.field in ("coherence", "coherence[0]", f"{RAW}[0].strength", None)


def test_what_is_too_deep_or_too_long_to_quote_is_still_named() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "a list too large to show"
    assert shown(10**5_000) == "a int too large to show"
