"""Layouts of pairs: every one in every kind of file gives the right table, or a named error, and nothing is lost."""

import csv
import functools
import gzip
import io
import itertools
import json
import logging
import math
import os
import re
import runpy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmlib import benchmarks, pairs, sources
from rmlib.models import RewardModel
from rmlib.models.templates import rendered
from rmlib.pairs import DataError
from rmlib.pairs.table import responses_of_row
from rmlib.sources import folder as folder_of_pairs
from rmlib.sources.__main__ import main
from rmlib.sources.layouts import LAYOUTS, recognise
from rmlib.sources.options import Options
from rmlib.training import TrainSettings

Row = dict[str, Any]
Pair = tuple[str, str, str]  # prompt, better and worse response
PAGE_OF_DATA = Path(__file__).resolve().parents[1] / "data" / "README.md"
PAGE = PAGE_OF_DATA.read_text()
DOCS = PAGE_OF_DATA.parents[1] / "docs"
CHOSEN = {"chosen": "Three degrees.", "rejected": "Cold."}


@pytest.fixture(autouse=True)
def _own_runs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path_factory.mktemp("runs")))


def user(content: str) -> Row:
    return {"role": "user", "content": content}


def assistant(content: str) -> Row:
    return {"role": "assistant", "content": content}


# Each layout as a stranger would write a pair of it.
WRITERS: dict[str, Callable[[str, str, str], Row]] = {
    "texts": lambda prompt, good, bad: {"prompt": prompt, "chosen": good, "rejected": bad},
    "last messages": lambda prompt, good, bad: {
        "Prompt": [user(prompt)], "Chosen": [assistant(good)], "Rejected": [assistant(bad)]
    },
    "whole conversations": lambda prompt, good, bad: {
        "chosen": [user(prompt), assistant(good)], "rejected": [user(prompt), assistant(bad)]
    },
    "prompt beside whole conversations": lambda prompt, good, bad: {
        "prompt": prompt, "chosen": [user(prompt), assistant(good)], "rejected": [user(prompt), assistant(bad)]
    },
    "numbers": lambda prompt, good, bad: {
        "prompt": prompt, "response_1": good, "response_2": bad, "preference": -2
    },
    "letters": lambda prompt, good, bad: {
        "prompt": prompt, "response_a": bad, "response_b": good, "winner": "model_b"
    },
    "conversations of an arena": lambda prompt, good, bad: {
        "conversation_a": [user(prompt), assistant(good)], "conversation_b": [user(prompt), assistant(bad)],
        "winner": "model_a",
    },
    "a rejected response": lambda prompt, good, bad: {
        "messages": [user(prompt), assistant(good)], "rejected_response": bad
    },
    "rejected messages": lambda prompt, good, bad: {
        "messages": [user(prompt), assistant(good)], "rejected_messages": [user(prompt), assistant(bad)]
    },
    "ranks": lambda prompt, good, bad: {"prompt": prompt, "completions": [bad, good], "ranks": [2, 1]},
    "scores": lambda prompt, good, bad: {"prompt": prompt, "responses": [bad, good], "scores": [-0.5, 7]},
    "UltraFeedback": lambda prompt, good, bad: {
        "instruction": prompt, "completions": [{"response": good, "fine-grained_score": 4.25, "overall_score": 1.0},
                                               {"response": bad, "fine-grained_score": 4, "overall_score": 10.0}]
    },
    "HelpSteer3": lambda prompt, good, bad: {
        "context": [user(prompt)], "response1": bad, "response2": good, "overall_preference": 3,
        "individual_preferences": [{"score": 3, "reasoning": "It says more."}],
    },
    "rated responses": lambda prompt, good, bad: {"prompt": prompt, "response": good, "score": 3},
}  # fmt: skip
PAIRS_ALONE = [name for name in WRITERS if name != "rated responses"]


def lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def cells(rows: list[Row], delimiter: str = ",") -> bytes:
    """As a spreadsheet writes them, with all that is no text as JSON."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([value if isinstance(value, str) else json.dumps(value) for value in row.values()])
    return file.getvalue().encode()


def columns(rows: list[Row]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


BOM = b"\xef\xbb\xbf"
FORMATS: dict[str, Callable[[list[Row]], bytes]] = {
    "mine.jsonl": lines,
    "bom.JSONL": lambda rows: BOM + lines(rows).replace(b"\n", b"\r\n"),
    "mine.ndjson.GZ": lambda rows: gzip.compress(lines(rows)),
    "lines.json": lines,
    "array.Json.gz": lambda rows: gzip.compress(BOM + json.dumps(rows, indent=1).encode()),
    "array.jsonl": lambda rows: json.dumps(rows).encode(),
    "mine.csv": cells,
    "bom.CSV.gz": lambda rows: gzip.compress(BOM + cells(rows)),
    "semicolons.csv": lambda rows: cells(rows, ";"),
    "mine.tsv": lambda rows: cells(rows, "\t"),
    "mine.parquet": columns,
    "mine.PARQUET.gz": lambda rows: gzip.compress(columns(rows)),
}


def put(folder: Path, name: str, rows: list[Row]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(FORMATS.get(path.name, lines)(rows))
    return folder


def read(table: Any) -> list[Pair]:
    """The pairs of a table, each with its better response first."""
    view = pairs.preference_view(table)
    return sorted(tuple(row[name][-1]["content"] for name in ("prompt", "chosen", "rejected")) for row in view)


AWKWARD = [
    ("42", "null", "true"), ("Sum, of; two\tnumbers?", '"Three", she said;\nand left', " blanks outside "),
    ("Größe?\u2028", "[1, 2]", "{}"), ("NA", "-1", "1e5"),
]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_layout_in_every_kind_of_file_gives_the_same_pairs_with_texts_as_they_are(
    tmp_path: Path, name: str
) -> None:
    """One folder with a file of each layout; a prompt names its layout, since the same pair would be merged."""
    expected = [(f"{layout} {prompt}", good, bad) for layout in PAIRS_ALONE for prompt, good, bad in AWKWARD]
    for layout in PAIRS_ALONE:
        put(tmp_path, f"{layout}/{name}", [WRITERS[layout](f"{layout} {p}", *texts) for p, *texts in AWKWARD])
    assert read(sources.load(tmp_path)) == sorted(expected)
    alone = put(tmp_path, name, [WRITERS["texts"](*pair) for pair in AWKWARD])
    assert read(sources.load(alone / name)) == sorted(AWKWARD)
    rated = sources.load(put(tmp_path / "rated", name, [WRITERS["rated responses"](*pair) for pair in AWKWARD]))
    assert [(row["response_1"], row["ratings_1"]["helpfulness"]) for row in rated] == [(pair[1], 3) for pair in AWKWARD]


@pytest.mark.parametrize("layout", PAIRS_ALONE)
def test_the_benchmark_of_own_pairs_reads_what_the_folder_loader_reads(tmp_path: Path, layout: str) -> None:
    rows = [WRITERS[layout](*pair) | {"subset": "easy", "id": number} for number, pair in enumerate(AWKWARD)]
    items = benchmarks.load("own", put(tmp_path, "mine.jsonl", rows))
    assert sorted((item["prompt"][0]["content"], *item["candidates"]) for item in items) == sorted(AWKWARD)
    assert sorted(items["item_id"]) == [f"easy/{number}" for number in range(len(AWKWARD))]


def test_own_pairs_keep_the_names_of_their_rows_as_far_as_these_tell_them_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = WRITERS["numbers"]
    rows = [row("a", "x", "y"), row("b", "x", "y") | {"id": 7}, row("b", "x", "y") | {"id": 7}, row("c", "x", "x"),
            row("d", "x", "y") | {"preference": 0}]  # fmt: skip
    put(tmp_path, "train.jsonl", rows)
    put(tmp_path, "test.jsonl", [row("e", "x", "y") | {"id": 7}])
    whole = benchmarks.load("own", tmp_path)
    assert sorted(whole["item_id"]) == ["test.jsonl/7", "train.jsonl/1", "train.jsonl/7"]
    assert "3 of 4 pairs are training pairs; parts='validation' scores the held-out ones alone" in caplog.text
    assert benchmarks.load("own", tmp_path, parts="validation")["item_id"][:] == ["test.jsonl/7"]
    assert sorted(benchmarks.load("own", tmp_path, parts="train")["item_id"]) == ["train.jsonl/1", "train.jsonl/7"]
    put(tmp_path, "test.jsonl", [row(prompt, "x", "y") | {"id": 7} for prompt in "ef"])
    named = benchmarks.load("own", tmp_path)
    assert "1 ids name several pairs, so that all items are named by pair_id: all/test.jsonl/7" in caplog.text
    assert set(named["item_id"]) <= set(sources.load(tmp_path)["pair_id"])
    ranked = {"prompt": "q", "completions": ["a", "b", "c"], "ranks": [2, 1, 3], "id": 1}
    assert len(benchmarks.load("own", put(tmp_path / "ranked", "mine.jsonl", [ranked]))) == 3


def test_own_pairs_that_are_not_scored_or_that_training_takes_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [WRITERS["numbers"](f"q{number}", "x", "y") for number in range(40)]
    rows[5] |= {"preference": 0}
    source = put(tmp_path, "mine.jsonl", rows) / "mine.jsonl"
    n_train = sources.load(source)["split"][:].count("train")
    items = benchmarks.load("own", source)
    assert 0 < n_train < 40 and len(items) == 39
    equal = {name: [0.5, 0.5] for name in items["item_id"]}
    benchmarks.summarise(items, equal | {items["item_id"][0]: [1.0, 0.5]})
    assert "are ties" not in caplog.text
    benchmarks.summarise(items, equal)
    assert "all 39 items are ties" in caplog.text
    assert f"mine.jsonl: {n_train} of 40 pairs are training pairs; parts='validation'" in caplog.text
    assert "mine.jsonl: not scored: ties (1 rows)" in caplog.text
    caplog.clear()
    assert len(benchmarks.load("own", source, parts="train")) in (n_train, n_train - 1)
    assert "training pairs" not in caplog.text
    for name, written, parts, says in (
        ("train.jsonl", [{"prompt": "q", "completions": ["a", "b", "c"], "ranks": [1, 1, 1], "split": "train"}], (),
         "train.jsonl: no decided pair among 3, of which 0 held out: ties 3. Give pairs of which one response"),
        ("test.jsonl", rows[:8], "train", "test.jsonl: none of 8 pairs is in parts train; 8 held out. Leave parts out"),
        ("rated.jsonl", [{"prompt": "q", "response": "a", "helpfulness": 3}], (),
         "no decided pair among 1, .* single responses 1. Give pairs of two responses"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=says):
            benchmarks.load("own", put(tmp_path / name, name, written) / name, parts=parts)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(lambda text: text.strip())
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
FOLDERS = itertools.count()


@SLOW
@given(st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=5), st.sampled_from(PAIRS_ALONE),
       st.sampled_from(list(FORMATS)))  # fmt: skip
def test_whatever_the_texts_a_file_gives_its_pairs_and_equal_responses_are_left_out(
    tmp_path: Path, given: list[Pair], layout: str, name: str
) -> None:
    given = [(f"{number} {prompt}", good, bad) for number, (prompt, good, bad) in enumerate(given)]
    folder = put(tmp_path / str(next(FOLDERS)), name, [WRITERS[layout](*pair) for pair in given])
    expected = sorted(pair for pair in given if pair[1] != pair[2])
    if expected:
        assert read(sources.load(folder)) == expected
    else:
        with pytest.raises(DataError, match="no usable pair"):
            sources.load(folder)


SCALARS = [None, "", " ", "a", "model_a", "tie", "dev", "Human: a\n\nAssistant: b", 0, 1, 2, -3, 1.5, 10**400, True]
MESSAGES = [
    [user("a")], [user("a"), assistant("b")], [user("a"), assistant("")], [assistant("a"), user("b")],
    [{"role": "user"}], [{"role": "judge", "content": "a"}], '[{"role": "user", "content": "a"}]', "[{'role': 'user'}]",
]  # fmt: skip
OTHERS = [float("inf"), [], {}, ["a", "b"], [1, 2], [None], {"helpfulness": 3}, {"helpfulness": "much"}]
ODD = st.sampled_from([*SCALARS, *MESSAGES, *OTHERS])
NAMES = sorted({column for layout in LAYOUTS for column in layout.columns} | {"score_chosen", "Prompt", "set"})


@settings(SLOW, max_examples=100)
@given(st.data())
def test_a_row_with_anything_in_it_is_in_the_table_or_counted_never_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    """One row of a layout is bent; the others are whole, so that exactly that row is at stake."""
    layout = data.draw(st.sampled_from(PAIRS_ALONE))
    rows = [WRITERS[layout](*pair) for pair in AWKWARD]
    bent = data.draw(st.integers(0, 3))
    for name in data.draw(st.lists(st.sampled_from([*rows[bent], *rows[bent], *NAMES]), min_size=1, max_size=2)):
        if data.draw(st.integers(0, 4)):
            rows[bent][name] = data.draw(ODD)
        else:
            rows[bent].pop(name, None)
    folder = put(tmp_path / str(next(FOLDERS)), "mine.jsonl", rows)
    caplog.clear()
    try:
        table = sources.load(folder, bad_rows="leave_out", unlabelled="keep")
    except DataError as error:
        assert str(error).count("\n") == 0 and "mine.jsonl" in str(error)
        return
    assert {pair for number, pair in enumerate(AWKWARD) if number != bent} <= set(read(table))
    counted = re.findall(r"left out (\d+) (?:rows, all written|pairs that have the same text)", caplog.text)
    assert len(table) + sum(map(int, counted)) == 4
    for row in table:
        assert all(str(text).strip() for text in responses_of_row(row))


@SLOW
@given(st.binary(max_size=60), st.sampled_from([name for name in FORMATS if not name.lower().endswith("gz")]),
       st.booleans())  # fmt: skip
def test_any_bytes_are_read_or_refused_by_name(tmp_path: Path, content: bytes, name: str, is_whole: bool) -> None:
    folder = put(tmp_path / str(next(FOLDERS)), name, [WRITERS["texts"](*pair) for pair in AWKWARD])
    whole = (folder / name).read_bytes()
    at = len(content) * 7919 % len(whole)
    (folder / name).write_bytes(content if is_whole else whole[:at] + content + whole[at + 3 :])
    try:
        table = sources.load(folder)
    except DataError as error:
        assert str(error).strip()
    else:
        assert len(table) >= 1


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_the_page_has_a_row_for_each_layout_whose_example_is_read(layout: Any, tmp_path: Path) -> None:
    needs, uses = (", ".join(f"`{column}`" for column in group) for group in (layout.needs, layout.uses))
    example = json.dumps(layout.example, ensure_ascii=False)
    assert f"| {layout.name} | {needs} | {uses} | `{example}` |\n" in PAGE
    made = sources.load(put(tmp_path, "mine.jsonl", [json.loads(example)]))
    for row in made:
        assert (
            row["response_2"] is None
            or row[f"response_{1 if row['preference'] < 0 else 2}"] == "Red."
            or ("Pink." in (row["response_1"], row["response_2"]))
        )


def test_the_page_has_no_row_of_a_layout_that_is_gone() -> None:
    section = PAGE.partition("## Layouts of one's own pairs")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| (?!layout)", section, re.MULTILINE)) == len(LAYOUTS)


# --- what is held out -------------------------------------------------------------------------------------------------

TRAIN = [WRITERS["texts"](f"train {n}", "good", "bad") for n in range(3)]
OTHER = [WRITERS["texts"]("other", "good", "bad")]


def split_of_other(folder: Path, **options: Any) -> str:
    table = sources.load(folder, **options)
    splits = {row["prompt"][0]["content"]: row["split"] for row in table}
    assert {splits[f"train {n}"] for n in range(3)} == {"train"}
    return splits["other"]


@pytest.mark.parametrize(
    "name",
    ["dev", "devel", "val", "valid", "validation", "eval", "evaluation", "heldout", "held-out", "held_out", "hold-out",
     "test", "DEV", "dev-1", "test_2", "test2", "dev.v2", "my_test", "pairs-dev", "testset", "EvalData", "HeldOut",
     "validation-00001-of-00004", "validation.00001-of-00004", "0.test.part-3", "tests"],
)  # fmt: skip
def test_what_a_name_or_a_folder_or_a_column_holds_out_is_never_trained_on(tmp_path: Path, name: str) -> None:
    put(tmp_path / "file", "train.jsonl", TRAIN)
    assert split_of_other(put(tmp_path / "file", f"{name}.jsonl", OTHER)) == "validation"
    put(tmp_path / "below", "train/0.jsonl", TRAIN)
    assert split_of_other(put(tmp_path / "below", f"{name}/0.jsonl", OTHER)) == "validation"
    rows = [row | {"split": "train"} for row in TRAIN] + [OTHER[0] | {"split": name}]
    assert split_of_other(put(tmp_path / "column", "pairs.jsonl", rows)) == "validation"
    with pytest.raises(DataError, match="field 'set': holds .* as a split would"):
        rows = [row | {"set": "train"} for row in TRAIN] + [OTHER[0] | {"set": "dev"}]
        sources.load(put(tmp_path / "other column", "pairs.jsonl", rows))


@pytest.mark.parametrize("name", ["latest", "contest", "device", "restrained", "protrain2", "value", "extra", "gold"])
def test_beside_named_files_a_name_that_says_nothing_is_refused_until_it_is_said(tmp_path: Path, name: str) -> None:
    folder = put(put(tmp_path, "train.jsonl", TRAIN), f"{name}.jsonl", OTHER)
    with pytest.raises(
        DataError, match=rf"{name}.jsonl, row 1: no name says .*{name}.jsonl \(1 rows\). Say it: split="
    ):
        sources.load(folder)
    held_out = put(folder, "test.jsonl", [WRITERS["texts"]("held out", "good", "bad")])
    assert split_of_other(held_out, split="train") == "train"
    assert split_of_other(held_out, split={f"{name}.jsonl": "validation"}) == "validation"
    with pytest.raises(DataError, match="split: 'none.jsonl' is in none of the files"):
        sources.load(folder, split={"none.jsonl": "train"})


def test_names_and_columns_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dev.jsonl, row 1, field 'split': train, in a file that is named as held out"):
        sources.load(put(tmp_path / "a", "dev.jsonl", [OTHER[0] | {"split": "train"}]))
    with pytest.raises(DataError, match="dev.jsonl: its name says that it is held out"):
        sources.load(put(tmp_path / "b", "dev.jsonl", OTHER), split={"dev.jsonl": "train"})
    with pytest.raises(DataError, match="names both training and held-out data"):
        sources.load(put(tmp_path / "c", "train_test.jsonl", OTHER))
    folder, load_items = put(tmp_path / "d", "train.jsonl", TRAIN), functools.partial(benchmarks.load, "own")
    for options, says in (
        ({"split": "dev"}, "split: 'dev' names no split"),
        ({"bad_rows": "skip"}, "Use refuse or leave_out"),
        ({"columns": {"a": 1}}, "does not say which column is which"),
        ({"label": "a/b"}, "no such option"),
        ({"unlabelled": "drop"}, "unlabelled: 'drop'"),
    ):
        for load in (sources.load, load_items):
            with pytest.raises(DataError, match=says):
                load(folder, **options)


# --- what is not used, and what cannot be read ------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["system", "tools", "history"])
def test_a_column_that_says_what_was_asked_is_never_passed_over(tmp_path: Path, column: str) -> None:
    row = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    lines = "".join(
        json.dumps(row | {column: value, "prompt": f"Q{value}"}) + "\n" for value in (None, "", "Be brief.")
    )
    (tmp_path / "train.jsonl").write_text(lines)
    with pytest.raises(DataError, match=f"row 3, field '{column}': .* it says what was asked"):
        sources.load(tmp_path)
    assert len(sources.load(tmp_path, columns={column: None})) == 3


def test_every_file_and_column_that_is_not_used_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [row | {"chosen_score": 3, "": None, "source": "x"} for row in TRAIN]
    folder = put(put(tmp_path, "train.jsonl", rows), "sub/test.jsonl", OTHER)
    for name in ("notes.txt", "train.xlsx", ".hidden/cache.jsonl", "sub/LICENSE"):
        put(folder, name, [])
    (folder / "dataset_info.json").write_text('{"splits": {"train": 3},\n "version": 1}')
    sources.load(folder)
    [files] = [message for message in caplog.messages if "not used: " in message]
    assert files == f"{folder.name}: not used: .hidden, notes.txt, sub/LICENSE, train.xlsx"
    assert "dataset_info.json: not used, for it is one object and no table of pairs" in caplog.messages
    unused = sorted(message for message in caplog.messages if ": column" in message)
    assert unused == [f"train.jsonl: column {name} not used (3 rows)" for name in ("''", "chosen_score", "source")]


def test_all_bad_rows_are_named_at_once_or_left_out_counted_and_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [WRITERS["texts"](f"question {n}", "" if n % 3 == 0 else "good", "bad") for n in range(40)]
    rows[1] |= {"rejected": 7}
    put(tmp_path, "train.jsonl", rows[:20])
    put(tmp_path, "test.jsonl", rows[20:])
    with pytest.raises(
        DataError, match="15 rows cannot be read: test.jsonl, row 2, field 'chosen': .*empty; "
    ) as caught:
        sources.load(tmp_path)
    assert len(re.findall(r"\.jsonl, row \d+", str(caught.value))) == 11  # the place, and the first ten
    made = sources.load(tmp_path, bad_rows="leave_out")
    assert len(made) == 25
    assert "left out, because field chosen: the text is empty (14 rows)" in caplog.text
    [file] = (sources.loading.folder.paths.runs_dir() / "bad_rows").iterdir()
    written = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["given"]["prompt"] for line in written) == sorted(
        row["prompt"] for row in rows if not row["chosen"] or row["rejected"] == 7
    )
    assert {(line["file"], line["row"], line["field"]) for line in written} >= {("train.jsonl", 2, "rejected")}


def test_ultrafeedback_is_ranked_by_its_aspects_or_by_its_overall_score_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = WRITERS["UltraFeedback"]("Why?", "So.", "No.")
    rows = [row, {"instruction": "Who?", "completions": [dict(each) for each in row["completions"]]}]
    for each in rows[1]["completions"]:
        del each["fine-grained_score"]
    assert read(sources.load(put(tmp_path, "train.jsonl", rows))) == [("Who?", "No.", "So."), ("Why?", "So.", "No.")]
    for column in ("fine-grained_score", "overall_score"):
        assert f"strength unknown, taken as 1; the better one has more {column} (1 rows)" in caplog.text


def test_lines_that_are_no_rows_are_bad_rows_too(tmp_path: Path) -> None:
    put(tmp_path, "train.jsonl", TRAIN)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('{"prompt": "cut\n\n[1]\n' + json.dumps(OTHER[0]))
    (tmp_path / "test.csv").write_text("prompt,chosen,rejected\na,b\nc,d,e\n")
    with pytest.raises(DataError, match="4 rows cannot be read: test.csv, row 1: 2 cells .*; train.jsonl, row 4: not"):
        sources.load(tmp_path)
    assert len(sources.load(tmp_path, bad_rows="leave_out")) == 5
    [file] = (sources.loading.folder.paths.runs_dir() / "bad_rows").iterdir()
    written = [json.loads(line)["given"] for line in file.read_text().splitlines()]
    assert written == [["a", "b"], '{"prompt": "cut\n', "\n", [1]]


def test_a_column_of_several_files_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        put(tmp_path, name, [row | {f"more {n}": n for n in range(15)} for row in TRAIN])
    sources.load(tmp_path)
    named = [message for message in caplog.messages if "not used" in message]
    assert sorted(named) == sorted(f"{tmp_path.name}, 2 files: column more_{n} not used (6 rows)" for n in range(15))


def test_columns_are_renamed_and_a_layout_that_is_unclear_says_what_was_tried(tmp_path: Path) -> None:
    rows = [{"question": "Why?", "better": "So.", "worse": "No.", "rejected": "x"}]
    folder = put(tmp_path, "train.csv", rows)
    (folder / "train.csv").write_bytes(cells(rows))
    with pytest.raises(DataError) as caught:
        sources.load(folder)
    assert all(layout.name in str(caught.value) for layout in LAYOUTS)
    assert "chosen and rejected lacks chosen;" in str(caught.value) and "HelpSteer2" not in str(caught.value)
    named = {"question": "prompt", "better": "chosen", "worse": "rejected", "rejected": None}
    assert read(sources.load(folder, columns=named)) == [("Why?", "So.", "No.")]
    with pytest.raises(DataError, match="columns: 'queston' is in none of the files"):
        sources.load(folder, columns=named | {"queston": "prompt"})
    with pytest.raises(DataError, match="two columns mean rejected"):
        sources.load(folder, columns=named | {"rejected": "rejected"})


@pytest.mark.parametrize("rows", [
    [{"prompt": "Why?", "response": "So.", "helpfulness": 3}],
    [{"prompt": "Why?", "response": "So.", "score": 3}] * 3,
    [{"question": "Why?"}],
])  # fmt: skip
def test_a_train_file_of_ones_own_is_never_taken_for_a_release(tmp_path: Path, rows: list[Row]) -> None:
    for name in ("train.jsonl", "validation.jsonl"):
        put(tmp_path, name, rows)
        try:
            assert sources.describe(tmp_path).title.startswith("own pairs")
        except DataError as error:
            assert "HelpSteer2 " not in str(error) and "Download" not in str(error)


def test_names_in_a_csv_stay_as_they_are_written(tmp_path: Path) -> None:
    names = {"007": "1.10", "123e4567": "1e5", "": "null"}
    rows = [f"{name},{subset},Why {name}?,a,b" for name, subset in names.items()]
    (tmp_path / "mine.csv").write_text("\n".join(["id,subset,prompt,chosen,rejected", *rows]) + "\n")
    items = benchmarks.load("own", tmp_path / "mine.csv")
    assert sorted(items["item_id"]) == ["1.10/007", "1e5/123e4567", "null/3"]


def test_csv_that_is_no_table_is_refused_with_its_row(tmp_path: Path) -> None:
    for text, says in {
        "prompt,chosen,rejected\na,b\n": "row 1: 2 cells under 3 names of columns",
        "prompt,chosen,rejected\na,b,c\nd,e,f,g\n": "row 2: 4 cells under 3 names",
        "prompt,chosen,chosen\na,b,c\n": "field 'chosen': two columns have this name",
        "prompt,chosen,rejected\n": "no row below the header",
        'prompt,chosen,rejected\na,"b,c\n': "not CSV",
        "prompt,chosen,rejected\na,b,\n": "row 1, field 'rejected': the text is empty",
        "prompt,chosen,rejected\na,[{'role': 'assistant'}],c\n": "field 'chosen': .*a text that holds messages",
    }.items():
        (tmp_path / "train.csv").write_text(text)
        with pytest.raises(DataError, match=says):
            sources.load(tmp_path)


@pytest.mark.parametrize("column", ["rank", "ranks", "ranking"])
def test_numbers_that_may_be_an_order_of_indices_are_no_ranks(tmp_path: Path, column: str) -> None:
    row = {"prompt": "Q", "completions": ["a", "b", "c"], column: [2, 0, 1]}
    says = rf"row 1, field '{column}': \[2, 0, 1\] may be ranks, or an order of indices, .*count from 1"
    with pytest.raises(DataError, match=says):
        sources.load(put(tmp_path, "train.jsonl", [row]))
    folder = put(tmp_path, "train.jsonl", [row | {column: [3, 1, 2]}])
    assert read(sources.load(folder)) == [("Q", "b", "a"), ("Q", "b", "c"), ("Q", "c", "a")]


# --- transcripts ------------------------------------------------------------------------------------------------------

TALK = "\n\nHuman: Hello \n\nAssistant: Hi.\n\nHuman: Two\n\nlines?\n\nAssistant:"


def test_transcripts_are_read_as_messages_or_as_texts_but_only_when_that_is_said(tmp_path: Path) -> None:
    folder = put(tmp_path, "train.jsonl", [{"chosen": f"{TALK} Yes,  \nthey are.", "rejected": f"{TALK} No."}])
    with pytest.raises(DataError, match=r"row 1, field '(chosen|rejected)': a transcript of turns .*transcripts=True"):
        sources.load(folder)
    [row] = pairs.preference_view(sources.load(folder, transcripts=True))
    assert row["prompt"] == [user("Hello "), assistant("Hi."), user("Two\n\nlines?")]
    assert (row["chosen"], row["rejected"]) == ([assistant("Yes,  \nthey are.")], [assistant("No.")])
    marked = "One\n<extra_id_1>Assistant\nTwo.\n<extra_id_1>User\nThree\n<extra_id_1>Assistant\n"
    folder = put(tmp_path / "marked", "train.jsonl", [{"prompt": marked, "response": "Four.", "score": 3}])
    with pytest.raises(DataError, match="row 1, field 'prompt': a transcript of turns"):
        sources.load(folder)
    turns = [user("One"), assistant("Two."), user("Three")]
    assert sources.load(folder, transcripts=True)[0]["prompt"] == turns
    folder = put(tmp_path / "b", "train.jsonl", [{"prompt": TALK, "chosen": "Yes.", "rejected": "No."}])
    assert len(sources.load(folder, transcripts=True)[0]["prompt"]) == 3
    assert sources.load(folder, transcripts=False)[0]["prompt"] == [user(TALK)]


@pytest.mark.parametrize("said", [True, False])
def test_an_option_for_transcripts_where_there_are_none_is_refused(tmp_path: Path, said: bool) -> None:
    folder = put(tmp_path, "train.jsonl", [{"prompt": "Q", "chosen": "Yes.", "rejected": "No."}])
    with pytest.raises(DataError, match="^transcripts: no text looks like a transcript .*Leave the option out"):
        sources.load(folder, transcripts=said)


def test_a_blank_subset_is_refused_with_its_file_and_row(tmp_path: Path) -> None:
    row = {"prompt": "Q", "chosen": "Yes.", "rejected": "No.", "subset": " "}
    with pytest.raises(DataError, match=r"^mine.jsonl, row 1, field 'subset': "):
        benchmarks.load("own", put(tmp_path, "mine.jsonl", [row]))


def test_a_file_in_no_layout_is_refused_after_its_first_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(folder_of_pairs, "recognise", lambda row, place: seen.append(place) or recognise(row, place))
    with pytest.raises(DataError, match="those of no layout"):
        sources.load(put(tmp_path, "train.jsonl", [{"text": "?"}] * 500))
    assert len(seen) == 20


def test_the_folder_where_one_stands_has_a_name_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = put(tmp_path / "mine", "train.jsonl", [{"prompt": "Q", "chosen": "Yes.", "rejected": "No."}])
    (folder / "notes.md").write_text("mine")
    monkeypatch.chdir(folder)
    sources.load(".")
    assert "mine: not used: notes.md" in caplog.text


def test_the_command_shows_what_a_file_holds_or_says_in_a_line_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "mine.csv", [{"question": "Why?", "better": "So it is.", "worse": "No."}])
    assert main([str(tmp_path / "mine.csv")]) == 1
    assert capsys.readouterr().err.startswith("error: mine.csv: its columns (question, better, worse) are those of no")
    named = ["--columns", "question=prompt", "better=chosen", "worse=rejected"]
    assert main([str(tmp_path / "mine.csv"), *named]) == 0
    shown = capsys.readouterr().out
    assert "own pairs (" in shown and "chosen    assistant: 'So it is.'" in shown
    logging.getLogger().handlers.clear()


# --- the three commands -----------------------------------------------------------------------------------------------


def test_the_three_commands_of_the_page_look_at_a_csv_train_on_it_and_score_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They run as they stand on the page, with the files that stand there, in this process."""
    page = (DOCS / "your_own_pairs.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    [table], [job] = ([text for kind, text in blocks if kind == wanted] for wanted in ("csv", "json"))
    commands = [text.split() for kind, text in blocks if kind == "sh"]
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text(table)
    Path("run.json").write_text(job)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the command leaves its name there for records
    shown = []
    for _python, _m, module, *arguments in commands:
        monkeypatch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that the module was imported before
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        assert not ended.value.code, capsys.readouterr().err
        shown.append(capsys.readouterr().out)
    assert len(commands) == 3
    assert "own pairs (8 train, 2 validation); preferences: annotated" in shown[0]
    trained, asked = json.loads(shown[1]), json.loads(job)["settings"]
    assert trained["step"] == asked["max_steps"] > asked["warmup_steps"]
    assert trained["loss"] < 0.5 * math.log(2)  # that of rewards which do not tell the responses apart is ln 2
    assert "own (own pairs): 2 items, 0 ties" in shown[2]
    for option in Options.__dataclass_fields__:
        assert f"`--{option.replace('_', '-')} " in page and f"`{option}=" in page and f'`"{option}": ' in page
    logging.getLogger().handlers.clear()


def blocks_of(page: Path, kind: str = "python") -> list[str]:
    """The blocks of code of one language that stand on a page."""
    return re.findall(rf"```{kind}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_page_s_python_reads_pairs_and_measures_ratings_and_its_template_tells_tool_calls_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = DOCS / "your_own_pairs.md"
    reading, measuring, calling = blocks_of(page)
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text(blocks_of(page, "csv")[0])
    found: Row = {}
    exec(reading, found)
    assert len(found["pairs"]) == 10 and len(found["items"]) == 2
    rows = [f"Count to {n}.,{'so ' * n},{n},{'train' if n == 4 else 'test'}" for n in (1, 2, 3, 4)]
    Path("ratings.csv").write_text("\n".join(["prompt,response,score,split", *rows]))
    model = RewardModel.create("embedded", seed=0)
    model.save(Path("runs/rated/model"))
    exec(measuring, found)
    assert sorted(found["rated"]) == [1, 2, 3] and -1 <= found["correlation"] <= 1
    rewards = [model.score([f"Count to {n}."], ["so " * n])[0] for n in (1, 2, 3)]
    assert found["error"] == pytest.approx(sum(abs(reward - n) for n, reward in enumerate(rewards, 1)) / 3, abs=1e-5)

    Path("calls.jinja").write_text(blocks_of(page, "jinja")[0])
    exec(calling, found)
    job = json.loads(Path("calls.json").read_text())
    chat = {"chat_template": TrainSettings.from_dict(job["settings"]).chat_template}
    [call, other] = [[assistant("") | {"tool_calls": [{"name": "warmth", "arguments": {"city": city}}]}]
                     for city in ("Oslo", "Rome")]  # fmt: skip
    asked = [user("How warm is it in Oslo?")]
    put(tmp_path, job["source"], [{"prompt": asked, "chosen": call, "rejected": other},
                                  {"prompt": asked + call + [{"role": "tool", "content": "3"}], **CHOSEN}])  # fmt: skip
    calling_model = RewardModel.create("embedded", seed=0, chat=chat)
    for row in sources.load(job["source"], split="train"):
        responses = responses_of_row(row)
        texts = [rendered(calling_model.tokenizer, row["prompt"], response) for response in responses]
        assert texts[0][0] != texts[1][0] and not texts[0][1] and not texts[1][1]
        assert len(set(calling_model.score([row["prompt"]] * 2, list(responses)).tolist())) == 2
    assert texts[0][0].startswith("<|user|>How warm is it in Oslo?<|end|><|assistant|>{")
    assert "<|end|><|user|>Result: 3<|end|><|assistant|>" in texts[0][0] and texts[0][0].endswith(".<|end|>")
