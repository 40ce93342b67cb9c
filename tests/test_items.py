"""The table of items and the files it is read from."""

import pytest
from datasets import Dataset
from written import write_rows

from rmlib.benchmarks import items
from rmlib.records.errors import DataError, Place

ROW = {"id": 1, "text": "a"}
PLACE = Place("file", 3)


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz", "rows.jsonl", "rows.jsonl.gz"])
def test_all_endings_give_the_same_rows_with_their_places(tmp_path, name):
    folder = write_rows(tmp_path, [ROW, ROW | {"id": 2}], f"deep/{name}")
    (first, second), label = list(items.file_rows(folder)[0]), items.file_rows(folder)[1]
    assert first == (Place(f"deep/{name}", 1), ROW) and str(second[0]) == f"deep/{name}, row 2"
    assert label.startswith("folder sha256:")
    assert next(iter(items.file_rows(folder / "deep" / name)[0]))[0].origin == name


def test_parquet_gives_them_too(tmp_path):
    Dataset.from_list([ROW]).to_parquet(tmp_path / "rows.parquet")
    assert list(items.file_rows(tmp_path)[0]) == [(Place("rows.parquet", 1), ROW)]


def test_preferred_files_alone_are_read_where_there_are_some(tmp_path):
    write_rows(tmp_path, [ROW], "total.json")
    write_rows(tmp_path, [ROW, ROW], "part.json")
    assert len(list(items.file_rows(tmp_path, prefer="total")[0])) == 1
    assert len(list(items.file_rows(tmp_path, prefer="other")[0])) == 3


def test_candidates_are_compared_as_listed_or_each_chosen_with_each_other():
    assert items.compared({"candidates": "abc", "correct": [True, False, True]}) == [(0, 1), (2, 1)]
    assert items.compared({"candidates": "abc", "correct": [True, False, True], "pairs": [[2, 1]]}) == [(2, 1)]
    assert items.compared({"candidates": "ab", "correct": [False, False]}) == []
    assert items.compared({"candidates": "abc"}) == [(0, 1), (0, 2)]


def make(**changes):
    asked = {"item_id": "s/1", "subset": "s", "prompt": "Why?", "responses": {"good": ["a"], "bad": ["b", "c"]}}
    return items.make_item(items.Given(**asked | changes), PLACE, keep_degenerate=False)


def test_an_item_has_its_first_field_correct_and_a_text_as_one_turn():
    made = make()
    assert made["candidates"] == ["a", "b", "c"] and made["correct"] == [True, False, False]
    assert made["prompt"] == [{"role": "user", "content": "Why?"}] and made["pairs"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"responses": {"good": ["a"], "bad": [None]}}, "file, row 3, field 'bad': None is not a text"),
        ({"responses": {"good": [""], "bad": ["b"]}}, "file, row 3, field 'good': the text is empty"),
        ({"prompt": []}, r"file, row 3, field 'prompt': \[\] is not a list of messages"),
    ],
)
def test_what_is_no_item_is_refused_with_its_place(changes, message):
    with pytest.raises(DataError, match=message):
        make(**changes)


def table_of(made, **options):
    asked = {"benchmark": "b", "label": "l", "subsets": ["s"], "partial": False, "keep_degenerate": False}
    return items.table_of(made, Place("folder"), **asked | options)


def test_no_items_are_refused_even_where_a_part_is_accepted():
    with pytest.raises(DataError, match="folder: no item of s. Add them, or set partial=True"):
        table_of([], partial=True)


def test_equal_and_empty_responses_are_logged_where_they_are_kept(caplog):
    made = [make(), make(item_id="s/2") | {"candidates": ["", "", "c"]}]
    with pytest.raises(DataError, match="chosen equals rejected: s/2. Remove them, or set keep_degenerate=True"):
        table_of(made)
    assert len(table_of(made, keep_degenerate=True)) == 2
    assert "kept 1 items whose responses are equal: s/2" in caplog.text
    assert "kept 1 items with an empty response: s/2" in caplog.text
