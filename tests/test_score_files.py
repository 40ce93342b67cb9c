"""Scores from a file: every layout gives the same, and what does not fit the items is refused by name and row."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmlib import benchmarks
from rmlib.benchmarks.benchmark import Scores
from rmlib.benchmarks.scoring import read_scores, write_scores
from rmlib.records.errors import DataError
from rmlib.statistics import Longer

CANDIDATES = {"s/0": ["a", "bb"], "s/1": ["ccc", "d"], "s/2": ["e", "f", "gg"]}
EXPECTED = {"s/0": [0.5, -1.25], "s/1": [3.0, 2e-7], "s/2": [1.0, 2.0, 3.0]}
ITEMS = Dataset.from_list(
    [
        {"item_id": name, "subset": "s", "prompt": [{"role": "user", "content": "?"}], "candidates": texts}
        for name, texts in CANDIDATES.items()
    ]
)
ROWS = [{"item_id": name, "scores": rewards} for name, rewards in EXPECTED.items()]
WIDE = [
    {"id": name} | {f"score_{number}": value for number, value in enumerate(rewards, start=1)}
    for name, rewards in EXPECTED.items()
]


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


WRITERS = {
    "rows.jsonl": lambda file: file.write_text(lines(ROWS)),
    "wide.jsonl": lambda file: file.write_text(lines(WIDE[::-1])),
    "object.json": lambda file: file.write_text(json.dumps(EXPECTED)),
    "wide.csv": lambda file: pd.DataFrame(WIDE).to_csv(file, index=False),
    "lists.csv": lambda file: pd.DataFrame(ROWS).to_csv(file, index=False),
    "lists.parquet": lambda file: pd.DataFrame(ROWS).to_parquet(file),
    "wide.parquet": lambda file: pd.DataFrame(WIDE).to_parquet(file),
    "rows.json": lambda file: file.write_text(json.dumps(ROWS)),
    "rows.jsonl.gz": lambda file: file.write_bytes(gzip.compress(lines(ROWS).encode())),
    "wide.tsv": lambda file: pd.DataFrame(WIDE).to_csv(file, index=False, sep="\t"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_gives_the_same_scores_and_says_that_ids_alone_name_its_texts(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    WRITERS[name](tmp_path / name)
    assert read_scores(tmp_path / name, ITEMS) == EXPECTED
    assert f"{name}: 3 of 3 rows have no texts_hash; they are taken by their id" in caplog.text


def test_what_we_write_is_read_back_to_the_bit_with_what_was_skipped_and_why(tmp_path: Path) -> None:
    scores = Scores({"s/0": [0.1, 1 / 3], "s/2": [1e-30, -5.0, 7.0]}, {"s/1": "too long"})
    again = read_scores(write_scores(scores, tmp_path / "below" / "scores.jsonl"), ITEMS)
    assert again == scores and again.skipped == scores.skipped
    assert [file.name for file in (tmp_path / "below").iterdir()] == ["scores.jsonl"]


def test_scores_of_a_scorer_here_and_from_its_file_are_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = benchmarks.score(Longer(), ITEMS)
    again = read_scores(write_scores(scores, tmp_path / "longer.jsonl"), ITEMS)
    assert again == scores and again.texts == scores.texts and not caplog.text
    assert len(set(scores.texts.values())) == 3


def test_what_messages_carry_beside_their_text_is_part_of_the_texts(tmp_path: Path) -> None:
    calls = [json.dumps({"tool_calls": [{"function": {"name": name, "arguments": {}}}]}) for name in ("look", "ask")]
    items = [Dataset.from_list([ITEMS[0] | {"extras": extras}]) for extras in (calls, calls[::-1])]
    file = write_scores(benchmarks.score(Longer(), items[0]), tmp_path / "longer.jsonl")
    assert read_scores(file, items[0]) == {"s/0": [1, 2]}
    with pytest.raises(DataError, match="s/0 has other texts"):
        read_scores(file, items[1])


@pytest.mark.parametrize(
    "change", [{"candidates": ["a", "BB"]}, {"candidates": ["bb", "a"]}, {"prompt": [{"role": "user", "content": "!"}]}]
)
def test_a_file_of_scores_fits_no_item_of_other_texts(tmp_path: Path, change: dict) -> None:
    file = write_scores(benchmarks.score(Longer(), ITEMS), tmp_path / "longer.jsonl")
    changed = Dataset.from_list([ITEMS[0] | change, *ITEMS.select([1, 2])])
    with pytest.raises(DataError, match=r"longer\.jsonl, row 1, field 'texts_hash': s/0 has other texts"):
        read_scores(file, changed)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", lines([*ROWS, {"item_id": "s/9", "scores": [1, 2]}]), r"a\.jsonl, row 4: 's/9' is no item"),
        ("a.jsonl", lines([*ROWS, ROWS[0]]), r"row 4: the id 's/0' occurs twice"),
        ("a.jsonl", lines(ROWS[:1]), r"no row for 2 of 3 items, e\.g\. \['s/1', 's/2'\]"),
        ("a.jsonl", lines([{"item_id": "s/0", "scores": [1.0]}]), "row 1: 1 rewards for 2 candidates"),
        ("a.jsonl", lines([{"item_id": "s/0", "scores": [1.0, None]}]), "None is not a finite number"),
        ("a.jsonl", lines([{"item_id": "s/0", "scores": [1.0, True]}]), "True is not a finite number"),
        ("a.jsonl", lines([{"item_id": "s/0", "scores": None}]), "no rewards"),
        ("a.jsonl", '{"item_id": "s/0", "scores": [NaN, 1]}\n', "row 1: not a line of JSON .*NaN is not JSON"),
        ("a.jsonl", lines([{"name": "s/0", "scores": [1, 2]}]), "no item_id; the row has name, scores"),
        ("a.csv", "item_id,score_1,score_2\ns/0,1,nan\n", "nan is not a finite number"),
        ("a.csv", "item_id,score_1,score_2\ns/0,1,high\n", "'high' is not a finite number"),
        ("a.csv", "item_id,scores\ns/0,1;2\n", "'1;2' is not a list"),
        ("a.json", '{"s/0": [1, 2], "s/0": [2, 1]}', "the key 's/0' occurs twice"),
        ("a.json", "[1, 2]", "1 is not a JSON object"),
        ("a.jsonl", lines([{"id": "s/0", "score_1": 1, "score_3": 2}]), "score_1, score_3 do not count from 1"),
        ("a.csv", "id,score_0,score_1\ns/0,1,2\n", "score_0, score_1 do not count from 1"),
        ("a.csv", "id,score_1,score_2,score_3\ns/0,1,,2\n", "'score_2': no score, though a later one has"),
        ("a.csv", "id,score_1,score_1\ns/0,1,2\n", "'score_1': two columns have this name"),
        ("a.csv", "id,score_1,score_2\ns/0,1,2,3\n", "4 cells under 3 names"),
        ("a.jsonl", lines([ROWS[0] | {"score_1": 1, "score_2": 2}]), "both `scores` and `score_1`"),
        ("a.jsonl", lines([ROWS[0] | {"texts_hash": "0" * 32}]), "row 1, field 'texts_hash': s/0 has other texts"),
        ("a.json", '{"s/0": "high"}', "not a list"),
        ("a.txt", "s/0 1 2", "not a kind of file that is read"),
    ],
)
def test_what_does_not_fit_the_items_is_refused_by_name(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_scores(tmp_path / name, ITEMS)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: there is no such file"):
        read_scores(tmp_path / "none.jsonl", ITEMS)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
REWARDS = st.fixed_dictionaries(
    {name: st.lists(NUMBERS, min_size=len(CANDIDATES[name]), max_size=len(CANDIDATES[name])) for name in CANDIDATES}
)
SPOILT = {
    "a reward less": lambda rows: rows[1]["scores"].pop(),
    "a reward more": lambda rows: rows[1]["scores"].append(1.0),
    "no number": lambda rows: rows[1]["scores"].__setitem__(0, None),
    "a row less": lambda rows: rows.pop(),
    "a row twice": lambda rows: rows.append(dict(rows[0])),
    "another id": lambda rows: rows[0].update(item_id="s/00"),
    "other texts": lambda rows: rows[0].update(texts_hash="0" * 32),
    "nothing": None,
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(REWARDS, st.sampled_from([".jsonl", ".json", ".parquet"]), st.booleans(), st.sampled_from(sorted(SPOILT)))
def test_a_file_gives_its_very_scores_or_a_named_error(
    tmp_path: Path, rewards: dict, ending: str, wide: bool, spoilt: str
) -> None:
    rows = [{"item_id": name, "scores": list(given)} for name, given in rewards.items()]
    if change := SPOILT[spoilt]:
        change(rows)
    if wide:
        of_each = [{f"score_{n}": value for n, value in enumerate(row.pop("scores"), start=1)} for row in rows]
        rows = [row | numbered for row, numbered in zip(rows, of_each, strict=True)]
    file = tmp_path / f"scores{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text(json.dumps(rows) if ending == ".json" else lines(rows))
    if spoilt == "nothing":
        assert read_scores(file, ITEMS) == rewards
    else:
        with pytest.raises(DataError, match=rf"^scores\{ending}"):
            read_scores(file, ITEMS)
