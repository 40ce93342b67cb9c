"""Labels and ratings of one's own pairs: read where they can mean one thing, by an option, or refused by name."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rmlib import sources
from rmlib.pairs import DataError, left_out, make_pairs, preference_view, rating_view
from rmlib.pairs.views import rating_scale
from rmlib.records.errors import Place
from rmlib.sources.labels import preferences_of

Row = dict[str, Any]


def placed(*rows: Row) -> list[tuple[Place, Row]]:
    return [(Place("mine.csv", number), {"label": None, "label_kind": "preference"} | row)
            for number, row in enumerate(rows, start=1)]  # fmt: skip


def labelled(values: list[Any], kind: str = "preference") -> list[tuple[Place, Row]]:
    return placed(*({"label": value, "label_kind": kind, "response_2": "b"} for value in values))


def read(values: list[Any], kind: str = "preference", **options: Any) -> list[int | None]:
    return [row["preference"] for _, row in preferences_of(labelled(values, kind), **options)[0]]


def refused(rows: list[tuple[Place, Row]], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        preferences_of(rows, **options)
    return str(caught.value)


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "readings"),
    [
        ([0, 1], ["0/1", "1/0"]),
        ([1, 2], ["1/2", "2/1"]),
        ([1, 1], ["0/1", "1/0", "1/2", "2/1"]),
        ([0, 0, 0], ["0/1", "1/0", "-3..3"]),
        ([0, 1, 2], ["0/1/2", "1/2/0"]),
        ([0, 0.5, 1], ["0/1", "1/0"]),
        ([1, 2, 3, 4, 5], ["1..5", "5..1"]),
        ([1, 4, 7], ["1..7", "7..1"]),
        ([2, 3], ["-3..3"]),
        ([-4, 4], ["-4..4", "4..-4"]),
        ([-1.5, 1.5], ["-1.5..1.5"]),
        ([3, 3], ["1..3", "-3..3"]),
        ([0.2, 0.9], ["0..1", "1..0"]),
        (["-1", "1"], ["-3..3"]),
        ([False, True], ["false/true", "true/false"]),
        (["A", "B"], ["a/b", "b/a"]),
        (["model_a", "model_b", "tie"], ["model_a/model_b", "model_b/model_a"]),
        (["response_1", "response_2"], ["response_1/response_2"]),
        (["[[A]]", "[[B]]", "[[C]]"], ["X/Y/T"]),
        (["A>B", "A>>B", "B>A"], ["a/b", "b/a"]),
    ],
)  # fmt: skip
def test_codes_are_refused_with_place_column_and_the_readings_to_choose_from(
    values: list[Any], readings: list[str]
) -> None:
    message = refused(labelled(values))
    assert message.startswith("mine.csv, row 1, field 'preference': preferences of ")
    assert all(f"'{reading}' (" in message for reading in readings) and "labels" in message
    assert "\n" not in message


@pytest.mark.parametrize("values", [[-1, 1], [-2, 2], [-2.0, 2.0], [-3, -1, 0, 2, 3], [-1, 0]])
def test_whole_numbers_of_which_one_is_negative_are_the_tables_own(values: list[Any]) -> None:
    assert read(values) == values


@pytest.mark.parametrize(
    ("labels", "values", "expected"),
    [
        ("0/1", [0, 1, 0.5, False, True, "1", " 0 "], [-1, 1, 0, -1, 1, 1, -1]),
        ("1/0", [0, 1, True], [1, -1, -1]),
        ("1/2", [1, 2, 1.5], [-1, 1, 0]),
        ("1/2/0", [1, 2, 0], [-1, 1, 0]),
        ("0/1/2", [0, 1, 2], [-1, 1, 0]),
        ("-1/1", [-1, 1, 0], [-1, 1, 0]),
        ("A/B", ["a", "B", "tie", "[[A]]", "Tie (both bad)", "both"], [-1, 1, 0, -1, 0, 0]),
        ("B/A", ["A", "B", "A>>B", "B>A", "A=B"], [1, -1, 2, -1, 0]),
        ("A/B", ["A>>B", "B>>>A", "[[A<B]]", "A~B"], [-2, 3, 1, 0]),
        ("A/B/C", ["[[C]]", "A", "B"], [0, -1, 1]),
        ("model_a,left/model_b,right/tie,skip", ["left", "model_b", "skip"], [-1, 1, 0]),
        ("1..5", [1, 2, 3, 4, 5], [-2, -1, 0, 1, 2]),
        ("5..1", [1, 2, 3, 4, 5], [2, 1, 0, -1, -2]),
        ("1..7", [1, 2, 3, 4, 5, 6, 7], [-3, -2, -1, 0, 1, 2, 3]),
        ("1..4", [1, 2, 3, 4], [-2, -1, 1, 2]),
        ("-4..4", [-4, -3, -2, -1, 0, 1, 2, 3, 4], [-3, -3, -2, -1, 0, 1, 2, 3, 3]),  # 3/4 of each, up
        ("0..1", [0, 0.4, 0.5, 0.51, 1], [-1, -1, 0, 1, 1]),
        ("-3..3", ["-3", "2", 1, 0.2], [-3, 2, 1, 1]),
        ("3..-3", [3, -2, 0], [-3, 2, 0]),
        ({"much worse, I'd say": 3, 7: -1}, ["Much worse, I'd say", 7.0], [3, -1]),
    ],
)  # fmt: skip
def test_a_reading_that_is_named_reads_the_column(labels: Any, values: list[Any], expected: list[int]) -> None:
    assert read(values, labels=labels) == expected


@pytest.mark.parametrize(
    ("labels", "value"),
    [("0/1", 2), ("0/1", "A"), ("1..5", 6), ("1..5", "good"), ("A/B", "C"), ("A/B", "A>C"), ("A/B", "A>A"),
     ("-3..3", 4)],
)  # fmt: skip
def test_a_label_outside_the_reading_is_refused_where_it_stands(labels: str, value: Any) -> None:
    known = labels.split("/")[0].split("..")[0]
    message = refused(labelled([known, value]), labels=labels)
    assert message.startswith(f"mine.csv, row 2, field 'preference': {value!r} is not a preference")


@pytest.mark.parametrize("labels", ["A", "", "A/", "A/A", "A/B/C/D", "3..3", "good..bad", 5, {"A": 4}])
def test_a_reading_that_says_nothing_is_refused(labels: Any) -> None:
    assert refused(labelled([1]), labels=labels).startswith("labels: ")


def test_a_column_of_winners_may_name_its_responses_by_their_place() -> None:
    assert read(["model_a", "model_b", "tie", "tie (bothbad)", "bothbad"], "winner") == [-1, 1, 0, 0, 0]
    assert read(["A", "b", "Response 2", "assistant_1", "first", "right"], "winner") == [-1, 1, 1, -1, -1, 1]
    for codes in ([1, 2], ["1", "2"], ["gpt-4", "llama"], ["A", "C"]):
        assert "field 'winner': preferences of" in refused(labelled(codes, "winner"))
    assert "'gpt-4/llama'" not in refused(labelled(["gpt-4", "llama"], "winner"))  # a name may stand on either side
    named = placed({"label": 1, "label_column": "label"}, {"label": 0, "label_column": "label"})
    assert "field 'label': preferences of" in refused(named)


def test_a_layout_that_says_who_is_chosen_and_a_table_of_ours_need_no_reading() -> None:
    assert read([1, 2, 3], "chosen") == [1, 2, 3]
    ours = placed({"pair_id": "x", "label": 1}, {"pair_id": "y", "label": None})
    assert [row["preference"] for _, row in preferences_of(ours)[0]] == [1, None]


CODES: dict[str, list[Any]] = {
    "0/1": [0, 0.5, 1], "2/1": [2, 1], "B/A/tie": ["B", "tie", "A"], "1..7": list(range(1, 8)),
    "-4..4": list(range(-4, 5)), "A/B": ["A>>B", "A>B", "A", "A=B", "B", "B>A", "B>>A"],
}  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(st.data(), st.sampled_from(list(CODES)))
def test_exchanging_the_responses_and_the_label_never_changes_who_is_chosen(data: st.DataObject, labels: str) -> None:
    codes = CODES[labels]
    drawn = data.draw(st.lists(st.integers(0, len(codes) - 1), min_size=1, max_size=4))

    def who_is_chosen(indices: list[int], first: str, second: str) -> list[Any]:
        texts = {"response_1": first, "response_2": second, "split": "train"}
        rows: list[Row] = [{"prompt": [{"role": "user", "content": str(number)}], "label": codes[index]} | texts
                for number, index in enumerate(indices)]  # fmt: skip
        table = make_pairs([row for _, row in preferences_of(placed(*rows), labels=labels)[0]], origin="test")
        return preference_view(table).remove_columns("pair_id").to_list()

    mirrored = [len(codes) - 1 - index for index in drawn]
    assert who_is_chosen(drawn, "one", "two") == who_is_chosen(mirrored, "two", "one")


# --- ratings ----------------------------------------------------------------------------------------------------------


def rated(one: Any, two: Any, **columns: Any) -> Row:
    return {"ratings_1": {"helpfulness": one}, "ratings_2": {"helpfulness": two}, "response_2": "b"} | columns


@pytest.mark.parametrize(
    ("ratings", "says"),
    [
        ([(1, 5)], "2 ratings reach from 1 to 5, outside 0 to 4"),
        ([(-1, 4)], "outside 0 to 4"),
        ([(0.2, 0.9)], "the scale may be 0 to 1, or 0 to 4"),
        ([(0, 1), (1, 0)], "the scale may be 0 to 1, or 0 to 4"),
        ([(1, 4), (2, 3)] * 5, "none is below 1: the scale may begin there"),
    ],
)
def test_ratings_that_are_or_may_be_on_another_scale_need_it(ratings: list[Any], says: str) -> None:
    message = refused(placed(*(rated(*two) for two in ratings)))
    assert says in message and "rating_scale=(" in message and "field 'ratings_" in message


@pytest.mark.parametrize(
    ("scale", "given_so", "expected"),
    [((1, 5), (1, 4), (0, 3)), ((0, 1), (0.25, 1), (1, 4)), ((0, 100), (50, 75), (2, 3)), ((5, 1), (1, 3), (4, 2))],
)
def test_ratings_are_taken_from_their_scale_to_the_tables_and_the_table_says_so(
    scale: tuple[float, float], given_so: tuple[float, float], expected: tuple[float, float]
) -> None:
    rows, origin = preferences_of(placed(rated(*given_so)), scale=scale)
    (row,) = [row for _, row in rows]
    assert (row["ratings_1"]["helpfulness"], row["ratings_2"]["helpfulness"]) == expected
    assert row["preference"] == max(-3, min(3, expected[1] - expected[0]))
    assert origin == f"derived from helpfulness; ratings of {scale[0]} to {scale[1]} taken to 0 to 4"


def test_a_score_counts_as_helpfulness_and_no_rating_as_none() -> None:
    texts = {"response_2": "b", "label": -1}
    rows = placed({"score_1": "3", "score_2": 1.5} | texts, {"score_1": math.nan, "score_2": "", "label": 2},
                  {"ratings_1": {"helpfulness": None, "verbosity": 4}, "score_1": 2, "label": 1})  # fmt: skip
    made = [row for _, row in preferences_of(rows)[0]]
    assert (made[0]["ratings_1"], made[0]["ratings_2"]) == ({"helpfulness": 3.0}, {"helpfulness": 1.5})
    assert not made[1].get("ratings_1") and not made[1].get("ratings_2")
    assert made[2]["ratings_1"] == {"helpfulness": 2, "verbosity": 4}
    twice = placed(rated(1, 2, score_1=3))
    assert "field 'score_1': 3 beside another helpfulness, 1" in refused(twice)


@pytest.mark.parametrize("scale", [(1, 1), (1,), 5, ("low", "high"), (1, math.inf)])
def test_a_scale_without_two_ends_is_refused(scale: Any) -> None:
    assert refused(placed(rated(1, 2)), scale=scale).startswith("rating_scale: ")


def test_a_rating_off_the_scale_is_refused_where_it_stands() -> None:
    message = refused(placed(rated(1, 2), rated(1, 6)), scale=(1, 5))
    assert message.startswith("mine.csv, row 2, field 'ratings_2.helpfulness': 6.0 is outside 1.0 to 5.0")


# --- both -------------------------------------------------------------------------------------------------------------


def test_labels_that_contradict_ratings_are_kept_counted_and_shown(caplog: pytest.LogCaptureFixture) -> None:
    rows = placed(rated(4, 1, label=2), rated(1, 4, label=-1), rated(1, 4, label=1), rated(2, 2, label=3))
    assert [row["preference"] for _, row in preferences_of(rows)[0]] == [2, -1, 1, 3]
    (message,) = caplog.messages
    assert "the preference of 2 rows contradicts their ratings" in message
    assert message.endswith(": mine.csv, row 1; mine.csv, row 2")


MIXED = [rated(1, 3, label=-1), rated(1, 3), {"response_2": "b"}]


def test_rows_without_a_label_beside_others_are_refused_with_counts() -> None:
    message = refused(placed(*MIXED))
    assert message.startswith("mine.csv, row 2, field 'preference': 2 of 3 rows have no preference, and 1 of these")
    assert "mine.csv, row 2; mine.csv, row 3" in message and "'derive'" in message
    assert "1 of 3 rows have no preference, and 0 of these" in refused(placed(*MIXED), unlabelled="derive")
    assert refused(placed(*MIXED), unlabelled="guess").startswith("unlabelled: ")
    assert "no row has a preference, or the helpfulness of both" in refused(placed({"response_2": "b"}))


def test_rows_without_a_label_are_derived_left_out_or_kept_as_asked(caplog: pytest.LogCaptureFixture) -> None:
    found = {name: preferences_of(placed(*MIXED[:2]), unlabelled=name) for name in ("derive", "leave_out", "keep")}
    assert {name: [(place.row, row["preference"]) for place, row in rows] for name, (rows, _) in found.items()} == {
        "derive": [(1, -1), (2, 2)], "leave_out": [(1, -1)], "keep": [(1, -1), (2, None)],
    }  # fmt: skip
    assert found["derive"][1] == "annotated, 1 derived from helpfulness" and found["keep"][1] == "annotated"
    assert "left out 1 rows without a preference: mine.csv, row 2" in caplog.text


def test_rows_whose_own_label_or_rating_cannot_be_read_are_handed_over_with_the_reason() -> None:
    rows = placed(rated(1, 2, label="A"), rated(1, 2, label="C"), rated("good", 9, label="D"), rated(1, 9, label="B"))
    bad: list[tuple[DataError, Row]] = []
    made, _ = preferences_of(rows, labels="A/B", scale=(1, 5), bad=bad)
    assert [(place.row, row["preference"]) for place, row in made] == [(1, -1)]
    assert sorted((error.place.row, error.place.field) for error, _ in bad) == [
        (2, "preference"), (3, "ratings_1.helpfulness"), (4, "ratings_2.helpfulness"),
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{"labels": "1/2"}, {"scale": (1, 5)}])
def test_an_option_that_reads_nothing_is_refused(options: dict[str, Any]) -> None:
    chosen_by_layout = placed({"label": 2, "label_kind": "chosen", "response_2": "b"})
    assert "Leave the option out" in refused(chosen_by_layout, **options)


VALUES: list[Any] = [None, "", math.nan, 0, 1, 2, -1, 3, 5, 0.5, True, "A", "B", "tie", "1", "x/y", [1], {}, 10**400]


def test_whatever_stands_in_the_columns_is_read_or_refused_by_name() -> None:
    for one, two in itertools.product(VALUES, repeat=2):
        for labels in (None, "0/1", "A/B/tie", "1..5"):
            rows = placed({"label": one, "response_2": "b"}, {"label": two, "response_2": "b"})
            ratings = placed(rated(one, two, label=-1), rated(1, 2, score_1=one, label=-1))
            for given_so, options in ((rows, {"labels": labels}), (ratings, {"scale": labels and (0, 5)})):
                try:
                    made = [row["preference"] for _, row in preferences_of(given_so, unlabelled="keep", **options)[0]]
                except DataError as error:
                    assert error.place.row in (1, 2) or error.place.origin in ("labels", "rating_scale"), error
                else:
                    assert len(made) == 2 and set(made) <= {None, *range(-3, 4)}
                    assert labels is not None or -1 in made or made == [None, None]


# --- from files -------------------------------------------------------------------------------------------------------


def written(folder: Path, name: str, *lines: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_a_csv_of_codes_is_refused_and_read_by_its_option(tmp_path: Path) -> None:
    rows = ["Q1,a,b,1", "Q2,a,b,2", "Q3,a,b,1", "Q4,a,b,"]
    folder = written(tmp_path / "own", "train.csv", "prompt,response_1,response_2,label", *rows)
    with pytest.raises(DataError, match="^train.csv, row 1, field 'label': preferences of 1, 2 in 3 rows .*'1/2'"):
        sources.load(folder)
    made = sources.load(folder, labels="1/2", unlabelled="leave_out")
    assert dict(zip([p[0]["content"] for p in made["prompt"]], made["preference"], strict=True)) == {
        "Q1": -1, "Q2": 1, "Q3": -1,
    }  # fmt: skip


@pytest.mark.parametrize("column", ["winner", "preferred", "choice", "chosen"])
def test_the_better_response_may_be_named_in_a_column_of_any_usual_name(tmp_path: Path, column: str) -> None:
    lines = [json.dumps({"prompt": f"Q{n}", "response_1": "a", "response_2": "b", column: f"response_{n}"})
             for n in (1, 2)]  # fmt: skip
    made = sources.load(written(tmp_path / "own", "train.jsonl", *lines))
    assert sorted(made["preference"]) == [-1, 1]


def test_a_file_of_codes_beside_one_of_preferences_is_not_read_as_the_other(tmp_path: Path) -> None:
    def lines(values: list[int], name: str) -> list[str]:
        return [json.dumps({"prompt": f"{name} {n}", "response_1": "a", "response_2": "b", "preference": value})
                for n, value in enumerate(values)]  # fmt: skip

    folder = written(tmp_path / "own", "train.jsonl", *lines([-1, 1] * 5, "train"))
    written(folder, "dev.jsonl", *lines([0, 1] * 2, "dev"))
    assert len(sources.load(folder)) == 14  # four labels may be ties by chance
    written(folder, "dev.jsonl", *lines([0, 1] * 4, "dev"))
    with pytest.raises(DataError, match="^dev.jsonl, row 1, field 'preference': preferences of 0, 1 in 8 rows"):
        sources.load(folder)


@pytest.mark.parametrize("name", ["train", "data"])
def test_scored_single_responses_are_a_table_that_says_their_scale(tmp_path: Path, name: str) -> None:
    rows = [("Q1", "one", 1), ("Q1", "two", 5), ("Q2", "three", 3), ("Q3", "four", 5)]
    lines = [json.dumps({"prompt": prompt, "response": text, "score": score}) for prompt, text, score in rows]
    folder = written(tmp_path / "own", f"{name}.jsonl", *lines)
    with pytest.raises(DataError, match="4 ratings reach from 1 to 5, outside 0 to 4"):
        sources.load(folder)
    made, info = sources.load_described(folder, rating_scale=(1, 5))
    view = rating_view(made)
    assert dict(zip(view["response"], view["helpfulness"], strict=True)) == {"one": 0, "two": 4, "three": 2, "four": 4}
    assert chosen(made) == [("Q1", "two", 3)] and left_out(made)["single responses"] == 2
    assert info.preferences == "derived from helpfulness"
    assert info.title.endswith("validation; ratings of 1 to 5 taken to 0 to 4)")
    assert rating_scale(made) == rating_scale(made.select([0])) == (1, 5)
    assert rating_scale(make_pairs([{"split": "train", "prompt": [{"role": "user", "content": "Q"}], "response_1": "a",
                                     "response_2": "b"}], origin="test")) == (0, 4)  # fmt: skip


def test_scores_beside_a_choice_are_ratings_where_their_scale_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scores = [(9, 2), (3, 8), (7, None)]
    lines = [json.dumps({"prompt": f"Q{n}", "chosen": "good", "rejected": "bad", "score_chosen": one,
                         "score_rejected": two}) for n, (one, two) in enumerate(scores)]  # fmt: skip
    folder = written(tmp_path / "own", "train.jsonl", *lines)
    made = sources.load(folder)
    assert made["ratings_1"][:] == made["ratings_2"][:] == [None] * 3 and len(chosen(made)) == 3
    assert "scores beside the preference of 3 rows are no ratings without rating_scale" in caplog.text
    assert (
        "the preference of 1 rows contradicts their ratings; the preference is kept: train.jsonl, row 2" in caplog.text
    )
    view = rating_view(sources.load(folder, rating_scale=(1, 9)))
    by_text = {(r["prompt"][0]["content"], r["response"]): r["helpfulness"] for r in view}
    assert by_text == {("Q0", "good"): 4, ("Q0", "bad"): 0.5, ("Q1", "good"): 1, ("Q1", "bad"): 3.5,
                       ("Q2", "good"): 3, ("Q2", "bad"): None}  # fmt: skip


def chosen(pairs: Dataset) -> list[tuple[str, str, float]]:
    return [(r["prompt"][0]["content"], r["chosen"][0]["content"], r["strength"]) for r in preference_view(pairs)]
