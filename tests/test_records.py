"""Records: what is written is what is read, nothing is lost to a killed or a second writer, nothing is made up."""

import fcntl
import json
import logging
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rmlib import records
from rmlib.records import RecordError
from rmlib.statistics import Interval


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "results" / "simulated-embedded.jsonl"


def add(path: Path, arm: str = "bt", accuracy: float = 0.7, seed: int | None = 0, **rest) -> dict:
    return records.append(path, kind="run", asked={"arm": arm}, outcome={"accuracy": accuracy}, seed=seed, **rest)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_record_is_one_line_with_every_field_and_reads_back_as_written(path):
    record = add(path, seconds=1.23456)
    assert lines_of(path) == [json.dumps(record, ensure_ascii=False)]
    assert tuple(record) == records.FIELDS
    assert (record["kind"], record["asked"], record["outcome"]) == ("run", {"arm": "bt"}, {"accuracy": 0.7})
    assert (record["seed"], record["seconds"], record["schema_version"]) == (0, 1.235, 1)
    assert record["time"].endswith("+00:00") and record["packages"]["numpy"] == np.__version__


def test_a_table_has_one_column_for_each_thing_asked_and_each_outcome(path):
    add(path, "bt", 0.7)
    records.append(
        path, kind="score", asked={"arm": "bt", "on": {"n": 3}}, outcome={"sections": {"Chat": {"low": 0.1}}}
    )
    table = records.read(path)
    assert table["asked.arm"].tolist() == ["bt", "bt"]
    assert table["outcome.accuracy"][0] == 0.7 and table["outcome.sections"][1] == {"Chat": {"low": 0.1}}
    assert table["asked.on"][1] == {"n": 3}
    assert table["seed"][0] == 0 and table["seed"].isna().tolist() == [False, True]
    assert {"commit", "command", "hardware.cpu", "packages.torch", "file"} <= set(table.columns)
    assert records.read(path, "score")["kind"].tolist() == ["score"]


def test_the_latest_record_of_a_name_counts_and_keeps_its_place(path):
    add(path, "bt", 0.7)
    add(path, "regression", 0.6)
    add(path, "bt", 0.8)
    assert len(lines_of(path)) == 3
    table = records.read(path)
    assert table[["asked.arm", "outcome.accuracy"]].values.tolist() == [["bt", 0.8], ["regression", 0.6]]


def test_running_again_for_nothing_adds_nothing_and_returns_the_old_record(path):
    first = add(path, accuracy=0.1 + 0.2, seconds=5)
    again = add(path, accuracy=np.float64(0.3) + 5e-17, seconds=9)
    assert again == first and again["seconds"] == 5
    assert len(lines_of(path)) == 1
    add(path, accuracy=0.5)
    add(path, accuracy=0.1 + 0.2)  # equal to an older record, not to the latest
    assert len(lines_of(path)) == 3


def test_kind_asked_and_seed_name_a_record_and_the_order_of_keys_does_not(path):
    def name(kind="run", asked=None, seed=0):
        return records.append(path, kind=kind, asked=asked or {"a": 1, "b": [2]}, outcome={}, seed=seed)["record_id"]

    assert name() == name(asked={"b": [2], "a": 1}) == name(asked={"a": np.int64(1), "b": np.array([2])})
    assert len({name(), name(kind="score"), name(seed=1), name(seed=None), name(asked={"a": 1, "b": [3]})}) == 5


@dataclass
class Settings:
    rate: float
    folds: tuple[int, ...]


def test_numpy_dataclasses_and_tuples_become_plain_json(path):
    outcome = {
        "interval": Interval(0.5, 0.4, 0.6, 10),
        "array": np.arange(3, dtype=np.float32) / 2,
        "flag": np.bool_(True),
        "none": None,
    }
    record = records.append(
        path, kind="run", asked={"settings": Settings(1e-6, (1, 2))}, outcome=outcome, seed=np.int32(3)
    )
    assert record["asked"] == {"settings": {"rate": 1e-6, "folds": [1, 2]}} and record["seed"] == 3
    assert json.loads(lines_of(path)[0])["outcome"] == {
        "interval": {"estimate": 0.5, "low": 0.4, "high": 0.6, "n": 10},
        "array": [0.0, 0.5, 1.0],
        "flag": True,
        "none": None,
    }


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        ({"loss": float("nan")}, r"outcome.loss is nan: record None"),
        ({"curve": {"loss": np.array([1.0, np.inf])}}, r"outcome.curve.loss\[1\] is inf"),
        ({1: 0.5}, r"outcome: keys must be texts, got \[1\]"),
        ({"arms": {"bt"}}, r"outcome.arms is a set, which JSON does not have"),
        ({"data": "/home/someone/data"}, r"outcome.data is a path, '/home/someone/data': record a content hash"),
        ({"data": "../elsewhere/data"}, r"outcome.data is a path"),
        ({"data": "~/data"}, r"outcome.data is a path"),
        ({"data": r"C:\data with space"}, r"outcome.data is a path"),
        ({"data": Path("runs/one")}, r"outcome.data is a path, 'runs/one'"),
    ],
)
def test_what_a_record_cannot_hold_is_refused_by_its_key_and_leaves_the_file_alone(path, outcome, message):
    add(path)
    before = path.read_bytes()
    with pytest.raises(RecordError, match=message):
        records.append(path, kind="run", asked={}, outcome=outcome)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["$DATA", "meta-llama/Llama-3.1-8B", "1/2", "/ divides", "a ~ b", "...", "sha256:ab"])
def test_texts_that_are_no_path_of_a_machine_are_kept(path, text):
    assert records.append(path, kind="run", asked={"text": text}, outcome={})["asked"]["text"] == text


def test_a_line_cut_short_by_a_killed_writer_is_left_out_with_a_warning(path, caplog):
    add(path, "bt")
    add(path, "regression")
    path.write_bytes(path.read_bytes()[:-40])
    assert records.read(path)["asked.arm"].tolist() == ["bt"]
    assert "simulated-embedded.jsonl: left out line 2, cut short by a killed writer" in caplog.text


def test_the_next_record_replaces_a_line_cut_short(path, caplog):
    add(path, "bt")
    add(path, "regression")
    path.write_bytes(path.read_bytes()[:-40])
    add(path, "scaled")
    assert "removed line 2, cut short by a killed writer" in caplog.text
    caplog.clear()
    assert records.read(path)["asked.arm"].tolist() == ["bt", "scaled"] and caplog.text == ""


def test_a_whole_last_line_without_its_line_break_is_kept(path, caplog):
    add(path, "bt")
    path.write_bytes(path.read_bytes()[:-1])
    assert records.read(path)["asked.arm"].tolist() == ["bt"]
    add(path, "regression")
    assert records.read(path)["asked.arm"].tolist() == ["bt", "regression"] and caplog.text == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", r"line 2: not JSON .*; restore the file from git or remove the line"),
        ("[1]", r"line 2: not a record"),
        ('{"schema_version": 2}', r"line 2: schema version 2, this code reads 1; use the matching code"),
        ('{"schema_version": 1, "record_id": "x"}', r"line 2: the record lacks time, kind, asked"),
    ],
)
def test_a_malformed_line_is_refused_with_file_and_line(path, line, message):
    add(path)
    with path.open("a") as file:
        file.write(line + "\n")
    for attempt in (lambda: records.read(path), lambda: add(path, "other")):
        with pytest.raises(RecordError, match=f"simulated-embedded.jsonl, {message}"):
            attempt()


def test_a_folder_is_read_file_by_file(tmp_path):
    add(tmp_path / "b.jsonl", accuracy=0.1)
    add(tmp_path / "a.jsonl", accuracy=0.2)
    table = records.read(tmp_path, "run")
    assert table[["file", "outcome.accuracy"]].values.tolist() == [["a.jsonl", 0.2], ["b.jsonl", 0.1]]


def test_nothing_to_read_says_how_to_get_it(tmp_path, path):
    for absent in (path, tmp_path):
        with pytest.raises(FileNotFoundError, match="no records at .*: run the notebook that writes them"):
            records.read(absent)
    add(path)
    with pytest.raises(RecordError, match=r"no record of kind 'score', only \['run'\]: run the notebook"):
        records.read(path, "score")


def test_an_empty_file_gives_an_empty_table_with_the_usual_columns(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    table = records.read(tmp_path / "empty.jsonl")
    assert len(table) == 0 and {"kind", "seed", "file"} <= set(table.columns)


def _write_many(path: Path, writer: int) -> None:
    for index in range(20):
        records.append(path, kind="run", asked={"writer": writer, "index": index}, outcome={"text": "x" * 20_000})


def test_two_writers_at_once_lose_nothing(path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(path, writer)) for writer in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    table = records.read(path)
    assert {*zip(table["asked.writer"], table["asked.index"], strict=True)} == {
        (w, i) for w in (0, 1) for i in range(20)
    }


def test_a_writer_waits_for_another_so_that_both_see_what_is_already_there(path):
    path.parent.mkdir(parents=True)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        writer = multiprocessing.get_context("fork").Process(target=add, args=(path,))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive() and path.stat().st_size == 0
        fcntl.flock(other, fcntl.LOCK_UN)  # closing is not enough: the writer inherited the open file
    writer.join(10)
    assert len(lines_of(path)) == 1


def test_a_record_is_one_write_to_the_end_of_the_file_and_on_the_disk(path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(os.fstat(descriptor).st_size))
    add(path)
    assert calls == [path.stat().st_size]


def test_this_file_logs_nothing_when_all_is_well(path, caplog):
    with caplog.at_level(logging.DEBUG):
        add(path)
        records.read(path)
    assert caplog.text == ""


def test_the_latest_record_of_a_name_is_found_by_what_was_asked(path):
    assert records.find(path, kind="run", asked={"arm": "bt"}, seed=0) is None  # no file yet
    add(path, "bt", 0.7)
    latest = add(path, "bt", 0.8)
    assert records.find(path, kind="run", asked={"arm": "bt"}, seed=0) == latest
    assert records.find(path, kind="run", asked={"arm": "bt"}, seed=1) is None
    assert records.find(path, kind="score", asked={"arm": "bt"}, seed=0) is None


def test_a_table_becomes_one_mapping_a_row_without_missing_values(path):
    table = pd.DataFrame({"label": ["a", "b"], "value": [0.5, np.nan], 3: [1, 2]})
    rows = records.rows(table)
    assert rows == [{"label": "a", "value": 0.5, "3": 1}, {"label": "b", "value": None, "3": 2}]
    records.append(path, kind="table", asked={}, outcome={"rows": rows})
    assert records.read(path, "table")["outcome.rows"][0] == rows
