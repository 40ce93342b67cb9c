"""The table of pairs: what it accepts, and what its views make of it."""

import hashlib
import itertools
import json
import logging
import math
import random
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from rmlib import pairs
from rmlib.pairs import ATTRIBUTES, DataError, make_pairs


def row(prompt: str = "Why?", one: str = "Because.", two: str = "Who knows.", **columns: Any) -> dict[str, Any]:
    return {
        "split": "train",
        "prompt": [{"role": "user", "content": prompt}],
        "response_1": one,
        "response_2": two,
    } | columns


def table(*rows: dict[str, Any]) -> Dataset:
    return make_pairs(rows, origin="test")


def ratings(*values: float) -> dict[str, float]:
    return dict(zip(ATTRIBUTES, values, strict=True))


def test_the_columns_are_those_of_the_design_and_missing_ones_are_null() -> None:
    scores = {name: Value("float64") for name in ("helpfulness", "correctness", "coherence", "complexity", "verbosity")}
    message = List({"role": Value("string"), "content": Value("string")})
    made = table(row())
    assert made.features == Features(
        {
            "pair_id": Value("string"),
            "split": Value("string"),
            "prompt": message,
            "response_1": Value("string"),
            "response_2": Value("string"),
            "extras_1": Value("string"),
            "extras_2": Value("string"),
            "ratings_1": scores,
            "ratings_2": scores,
            "preference": Value("int64"),
            "annotations": List(
                {
                    "annotator": Value("string"),
                    "preference": Value("int64"),
                    "statement": Value("string"),
                    "elaboration": Value("string"),
                    "justification": Value("string"),
                    "ratings_1": scores,
                    "ratings_2": scores,
                }
            ),
            "truth_1": scores,
            "truth_2": scores,
            "truth_preference": Value("float64"),
        }
    )
    given = {"pair_id", "split", "prompt", "response_1", "response_2"}
    assert {name: value for name, value in made[0].items() if name not in given} == dict.fromkeys(
        ["extras_1", "extras_2", "ratings_1", "ratings_2", "preference", "annotations"]
        + ["truth_1", "truth_2", "truth_preference"]
    )


def test_every_value_comes_back_as_it_was_given() -> None:
    annotation = {"annotator": "a", "preference": -100, "justification": "neither", "ratings_1": {"coherence": 4}}
    truth = ratings(-1.5, 0, 7.25, 1e-3, -3)
    full = row(
        preference=np.int64(-2),
        ratings_1=ratings(0, 1, 2, 3, 4),
        ratings_2={"helpfulness": np.float64(3.5)},
        annotations=[annotation],
        truth_1=truth,
    )
    got = table(full)[0]
    assert got["preference"] == -2
    assert got["ratings_1"] == ratings(0, 1, 2, 3, 4)
    assert got["ratings_2"] == dict.fromkeys(ATTRIBUTES) | {"helpfulness": 3.5}
    assert got["truth_1"] == truth and got["truth_2"] is None
    assert got["annotations"][0]["ratings_1"] == dict.fromkeys(ATTRIBUTES) | {"coherence": 4.0}
    assert {name: got["annotations"][0][name] for name in ("annotator", "preference", "justification")} == {
        "annotator": "a",
        "preference": -100,
        "justification": "neither",
    }


def test_a_pair_id_is_the_start_of_a_sha256_of_all_texts_and_roles() -> None:
    text = '["[[\\"user\\",\\"Wie groß?\\"]]","a","b"]'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert pairs.pair_id([{"role": "user", "content": "Wie groß?"}], "a", "b") == expected
    assert table(row("Wie groß?", "a", "b"))[0]["pair_id"] == expected


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text(max_size=3)), min_size=1, max_size=3),
       st.text(max_size=3), st.text(max_size=3), st.text(max_size=3))  # fmt: skip
def test_pair_ids_differ_where_texts_differ_even_by_where_one_ends(
    turns: list[tuple[str, str]], one: str, two: str, three: str
) -> None:
    prompt = [{"role": role, "content": content} for role, content in turns]
    assert pairs.pair_id(prompt, one, two + three) != pairs.pair_id(prompt, one + two, three) or two == ""
    extended = [*prompt[:-1], {"role": prompt[-1]["role"], "content": prompt[-1]["content"] + one}]
    assert pairs.pair_id(extended, two, three) != pairs.pair_id(prompt, two, three) or one == ""


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"split": "test"}, "split", "not a split"),
        ({"split": None}, "split", "not a split"),
        ({"prompt": "Why?"}, "prompt", "not a list of messages"),
        ({"prompt": []}, "prompt", "not a list of messages"),
        ({"prompt": [{"role": "user"}]}, "prompt", "not a message"),
        ({"prompt": [{"role": "human", "content": "Why?"}]}, "prompt", "'human' is not a role"),
        ({"prompt": [{"role": "assistant", "content": "Why?"}]}, "prompt", "not the user's"),
        ({"prompt": [{"role": "user", "content": " \n"}]}, "prompt", "empty"),
        ({"prompt": [{"role": "user", "content": 3}]}, "prompt", "not a text"),
        ({"response_1": ""}, "response_1", "empty"),
        ({"response_2": " \t\n"}, "response_2", "empty"),
        ({"response_2": None}, "response_2", "not a text"),
        ({"response_2": "half a pair \ud83d"}, "response_2", "not valid Unicode"),
        ({"preference": 4}, "preference", "outside -3 to 3"),
        ({"preference": -100}, "preference", "outside -3 to 3"),
        ({"preference": 0.5}, "preference", "not a whole number"),
        ({"preference": True}, "preference", "not a finite number"),
        ({"preference": "1"}, "preference", "not a finite number"),
        ({"ratings_1": {"helpfulness": 5}}, "ratings_1.helpfulness", "outside 0 to 4"),
        ({"ratings_1": {"helpfulness": -1e-9}}, "ratings_1.helpfulness", "outside 0 to 4"),
        ({"ratings_2": {"verbosity": math.nan}}, "ratings_2.verbosity", "not a finite number"),
        ({"ratings_2": {"verbosity": 10**400}}, "ratings_2.verbosity", "not a finite number"),
        ({"ratings_2": {"helpfullness": 3}}, "ratings_2", "does not map attributes"),
        ({"ratings_2": [1, 2, 3, 4, 0]}, "ratings_2", "does not map attributes"),
        ({"truth_1": {"helpfulness": math.inf}}, "truth_1.helpfulness", "not a finite number"),
        ({"annotations": [{"preference": 7}]}, "annotations[0].preference", "outside -3 to 3"),
        ({"annotations": [{"preference": 1}, {"vote": 1}]}, "annotations[1]", "not an annotation"),
        ({"annotations": [{"preference": 1, "justification": 5}]}, "annotations[0].justification", "not a text"),
        ({"pair_id": "mine"}, "pair_id", "does not name these texts"),
        ({"ratings_3": None}, "ratings_3", "unknown column"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_with_source_row_and_field(change: dict[str, Any], field: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        make_pairs([row(), row("Who?"), row("What?") | change], origin="my file")
    assert caught.value.place == ("my file", 3, field)
    assert str(caught.value).startswith(f"my file, row 3, field '{field}': ")
    assert says in str(caught.value)


def exchanged(given: dict[str, Any]) -> dict[str, Any]:
    """The same row with its responses, ratings and preference turned round."""
    sides = {
        f"{name}_{one}": given.get(f"{name}_{two}") for name in ("response", "ratings") for one, two in ("12", "21")
    }
    return given | sides | {"preference": None if given["preference"] is None else -given["preference"]}


def votes(pair: dict[str, Any]) -> list[int]:
    return sorted(annotation["preference"] for annotation in pair["annotations"])


def test_the_same_pair_with_equal_labels_is_one_pair_and_said_with_both_places(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [
        row("A"),
        row("B", preference=2),
        row("A", preference=1),
        exchanged(row("B", preference=2)),
        row("C", "s", "s"),
    ]
    made = table(*rows)
    assert [(r["prompt"][0]["content"], r["preference"], r["annotations"]) for r in made] == [
        ("A", 1, None), ("B", 2, None)
    ]  # fmt: skip
    merged, identical = caplog.messages
    assert "2 pairs stand in several rows with equal labels, merged" in merged
    assert f"{made[0]['pair_id']} (test, row 1; test, row 3)" in merged
    assert f"{made[1]['pair_id']} (test, row 2; test, row 4)" in merged
    assert "left out 1 pairs that have the same text as both responses" in identical
    assert pairs.pair_id(rows[4]["prompt"], "s", "s") in identical


@pytest.mark.parametrize(
    ("labels", "preference"),
    [
        ([2, 2, 3], 2),  # mean 7/3
        ([-1, 1, 1], 0),  # mean 1/3
        ([3, -3], None),  # they span more than 2
        ([1, 2], 2),  # a half, to the even number
        ([-1, -2], -2),
        ([3, 3, 3, -3], 3),  # the three most similar
        ([2, 2, 2, -2, -2, -2], 0),  # two choices of three are as good
    ],
)
def test_different_labels_of_one_pair_are_its_votes_and_decide_as_those_of_helpsteer2_do(
    labels: list[int], preference: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [row(preference=label, ratings_1={"helpfulness": 2}) for label in labels]
    (pair,) = table(*(exchanged(each) if number % 2 else each for number, each in enumerate(rows)))
    turned = 1 if pair["response_1"] == rows[0]["response_1"] else -1
    assert votes(pair) == sorted(turned * label for label in labels)
    assert pair["preference"] == (None if preference is None else turned * preference)
    assert "1 pairs stand in several rows whose labels differ" in caplog.text


LABELLED = st.fixed_dictionaries({
    "prompt": st.sampled_from("AB"), "preference": st.none() | st.integers(-3, 3), "turn": st.booleans(),
    "ratings_1": st.none() | st.fixed_dictionaries({"helpfulness": st.integers(0, 4)}),
})  # fmt: skip


def chosen_of(made: Dataset) -> dict[str, tuple[str, float]]:
    """For each prompt who is chosen, and how strongly."""
    view = pairs.preference_view(made)
    return {r["prompt"][0]["content"]: (r["chosen"][0]["content"], r["strength"]) for r in view}


@settings(max_examples=12, deadline=None)
@given(st.lists(LABELLED, min_size=1, max_size=6), st.randoms())
def test_merging_depends_on_neither_order_nor_sides_and_loses_no_vote(
    drawn: list[dict[str, Any]], random: random.Random
) -> None:
    rows = [row(r["prompt"], preference=r["preference"], ratings_1=r["ratings_1"]) for r in drawn]
    given_so = [exchanged(one) if r["turn"] else one for one, r in zip(rows, drawn, strict=True)]
    made = table(*given_so)
    shuffled = table(*random.sample(given_so, len(given_so)))
    assert sorted(made.to_list(), key=repr) == sorted(shuffled.to_list(), key=repr)
    assert chosen_of(made) == chosen_of(table(*rows)) == chosen_of(table(*map(exchanged, rows)))
    for pair in made:
        said = [r["preference"] for r in drawn if r["prompt"] == pair["prompt"][0]["content"]]
        if pair["annotations"] is None:
            assert set(said) <= {None, pair["preference"], -(pair["preference"] or 0)}
        else:
            kept = [a["preference"] for a in pair["annotations"] if a["preference"] is not None]
            assert sorted(map(abs, kept)) == sorted(abs(label) for label in said if label is not None)


@pytest.mark.parametrize(("annotator", "kept"), [(None, [-1, 1, 1]), ("a", [-1, 1])])
def test_annotations_without_names_are_never_taken_for_one_anothers(annotator: str | None, kept: list[int]) -> None:
    rows = [row(preference=n, annotations=[{"annotator": annotator, "preference": n}]) for n in (1, 1, -1)]
    assert votes(table(*rows)[0]) == kept


def test_a_named_annotator_votes_once_where_lists_of_a_pair_overlap() -> None:
    x, z = {"annotator": "x", "preference": 1}, {"annotator": "z", "preference": 2}
    merged = table(row(preference=1, annotations=[x]), row(preference=2, annotations=[x, z]))
    assert sorted(vote["annotator"] for vote in merged[0]["annotations"]) == ["x", "z"]


def test_merged_annotations_turn_with_their_pair_and_a_justification_says_which_way_it_stands() -> None:
    why = {"preference": 2, "justification": "@Response 2 is better.", "ratings_1": ratings(0, 1, 2, 3, 4)}
    plain = {"annotator": "b", "preference": -1, "ratings_2": {"coherence": 4}}
    first = row("Q", "z", "a", preference=2, annotations=[why])
    second = row("Q", "a", "z", preference=-1, annotations=[plain], split="validation", truth_preference=3.0)
    (pair,) = table(second, first)
    assert (pair["response_1"], pair["split"], pair["truth_preference"]) == ("z", "validation", -3.0)
    by_vote = {annotation["preference"]: annotation for annotation in pair["annotations"]}
    assert by_vote.keys() == {1, 2}
    assert by_vote[2]["justification"] == why["justification"] and by_vote[2]["ratings_1"] == why["ratings_1"]
    assert by_vote[1]["annotator"] == "b" and by_vote[1]["ratings_1"]["coherence"] == 4
    assert pair["preference"] == 2  # 1.5, to the even number


# --- single responses ---


def single(prompt: str, text: str, helpfulness: float | None = None, **columns: Any) -> dict[str, Any]:
    return row(prompt, text, two=None, ratings_1={"helpfulness": helpfulness, "verbosity": 2}) | columns  # type: ignore[arg-type]


def test_rated_responses_of_one_prompt_become_pairs_and_others_stay_single(caplog: pytest.LogCaptureFixture) -> None:
    made = table(
        single("two", "a", 1), single("one", "b", 4), single("two", "c", 3.6), single("three", "d", 2),
        single("three", "e", 2.4), single("three", "f"), single("apart", "g", 1),
        single("apart", "h", 2, split="validation"),
    )  # fmt: skip
    seen = [(r["prompt"][0]["content"], r["response_1"], r["response_2"], r["preference"]) for r in made]
    assert seen == [
        ("two", "a", "c", 3), ("three", "d", "e", 0), ("three", "d", "f", None), ("three", "e", "f", None),
        ("one", "b", None, None), ("apart", "g", None, None), ("apart", "h", None, None),
    ]  # fmt: skip
    assert made[0]["ratings_2"] == dict.fromkeys(ATTRIBUTES) | {"helpfulness": 3.6, "verbosity": 2}
    assert made[4]["pair_id"] == pairs.pair_id([{"role": "user", "content": "one"}], "b", None)
    assert made.info.description == "derived from helpfulness"
    assert pairs.left_out(made) == {"ties": 1, "no preference": 2, "single responses": 3}
    for said in ("share a prompt, made pairs (5 rows)", "ties among the pairs so made (1 rows)",
                 "which regression alone learns from (3 rows)"):  # fmt: skip
        assert said in caplog.text
    assert chosen_of(made) == {"two": ("c", 3.0)}
    texts = pairs.rating_view(made)["response"][:]
    assert sorted(texts) == sorted("acdedfefbgh") and pairs.unranked(made)["fewer than three responses"] == 1


def test_many_responses_of_one_prompt_are_not_compared_each_with_each(caplog: pytest.LogCaptureFixture) -> None:
    made = table(*(single("essay", f"text {n}", n % 5) for n in range(9)))
    assert made["response_2"][:] == [None] * 9 and made.info.description == "none"
    assert "single responses of prompts with over 8, not compared (9 rows)" in caplog.text


def test_a_response_rated_twice_has_the_mean_and_keeps_both_ratings(caplog: pytest.LogCaptureFixture) -> None:
    made = table(single("Q", "a", 1), single("Q", "b", 4), single("Q", "a", 2))
    (pair,) = made
    assert (pair["ratings_1"]["helpfulness"], pair["ratings_2"]["helpfulness"], pair["preference"]) == (1.5, 4, 2)
    assert sorted(a["ratings_1"]["helpfulness"] for a in pair["annotations"]) == [1, 2]
    assert "(test, row 1; test, row 3)" in caplog.text


def test_ratings_of_responses_that_were_compared_join_their_pair(caplog: pytest.LogCaptureFixture) -> None:
    compared = row("Q", "a", "b", preference=-1)
    made = make_pairs(
        [single("Q", "b", 4), compared, single("Q", "a", 1)], origin="test", preferences="annotated; more"
    )
    (pair,) = made
    assert (pair["preference"], pair["annotations"]) == (-1, None)
    assert (pair["ratings_1"]["helpfulness"], pair["ratings_2"]["helpfulness"]) == (1, 4)
    assert made.info.description == "annotated; more"
    assert "contradict the preference between them, which is kept (1 rows)" in caplog.text
    more = [compared, single("P", "b", 4), single("P", "a", 1)]
    said = make_pairs(more, origin="test", preferences="annotated; more").info.description
    assert said == "annotated, 1 derived from helpfulness; more"


def test_what_is_said_of_a_second_response_needs_one() -> None:
    for change in ({"preference": 1}, {"ratings_2": {"helpfulness": 1}}, {"ratings_1": None}):
        with pytest.raises(DataError, match="field 'response_2'"):
            table(single("Q", "a", 1) | change)


def test_published_tables_keep_the_first_of_equal_rows(caplog: pytest.LogCaptureFixture) -> None:
    made = make_pairs([row(), row(preference=1), row(preference=1, split="validation")], origin="x", repeats="first")
    assert made["preference"][:] == [None]
    assert "left out 2 pairs that repeat an earlier pair" in caplog.text and made[0]["pair_id"] in caplog.text


def test_nothing_usable_is_an_error_and_a_prompt_in_both_splits_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match="^none: no usable pair"):
        make_pairs([], origin="none")
    with pytest.raises(DataError, match="no usable pair"):
        table(row("A", "same", "same"))
    caplog.clear()
    table(row("A"), row("A", "other", "texts", split="validation"), row("B", split="validation"))
    assert caplog.messages == ["test: 1 prompts occur in both train and validation"]


@pytest.mark.parametrize(
    ("first", "second", "preference"),
    [(0, 4, 3), (4, 0, -3), (1, 4, 3), (2, 3, 1), (3, 3, 0), (4, 2, -2), (1, 1.4, 0), (1, 2.5, 2), (2.5, 1, -2)],
)
def test_a_derived_preference_is_the_rounded_difference_clipped_to_three(
    first: float, second: float, preference: int
) -> None:
    assert pairs.preference_from_ratings(first, second) == preference


@given(st.floats(0, 4), st.floats(0, 4))
def test_exchanging_the_responses_changes_the_sign_of_a_derived_preference(first: float, second: float) -> None:
    assert pairs.preference_from_ratings(first, second) == -pairs.preference_from_ratings(second, first)


PREFERENCES = [-3, -2, -1, 0, 1, 2, 3, None]


def decided_table() -> Dataset:
    return table(*(row(f"prompt {p}", f"one {p}", f"two {p}", preference=p) for p in PREFERENCES))


def test_preference_view_puts_the_preferred_response_first_and_leaves_out_what_is_not_decided(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = decided_table()
    with caplog.at_level(logging.INFO):
        view = pairs.preference_view(made)
    seen = [(r["prompt"][0]["content"], r["chosen"][0]["content"], r["rejected"][0]["content"], r["strength"])
            for r in view]  # fmt: skip
    assert seen == [
        ("prompt -3", "one -3", "two -3", 3.0),
        ("prompt -2", "one -2", "two -2", 2.0),
        ("prompt -1", "one -1", "two -1", 1.0),
        ("prompt 1", "two 1", "one 1", 1.0),
        ("prompt 2", "two 2", "one 2", 2.0),
        ("prompt 3", "two 3", "one 3", 3.0),
    ]
    assert pairs.left_out(made) == {"ties": 1, "no preference": 1}
    assert "6 of 8 pairs; left out: {'ties': 1, 'no preference': 1}" in caplog.text
    by_prompt = {r["prompt"][0]["content"]: r["pair_id"] for r in made}
    assert all(by_prompt[r["prompt"][0]["content"]] == r["pair_id"] for r in view)


def test_trl_takes_the_preference_view_as_it_is() -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    from tiny import byte_tokenizer

    example = pairs.preference_view(table(row("Why?", "No.", "Yes.", preference=2)))[0]
    assert data_utils.is_conversational(example)
    texts = data_utils.apply_chat_template(example, byte_tokenizer())
    assert texts["prompt"] + texts["chosen"] == "<|user|>Why?<|end|><|assistant|>Yes.<|end|>"
    assert texts["prompt"] + texts["rejected"] == "<|user|>Why?<|end|><|assistant|>No.<|end|>"


def test_rating_view_has_two_rows_a_pair_with_null_where_unrated() -> None:
    made = table(row("A", "one", "two", ratings_1=ratings(0, 1, 2, 3, 4), ratings_2={"coherence": 3}), row("B"))
    view = pairs.rating_view(made)
    assert view.column_names == ["pair_id", "prompt", "response", "extras", *ATTRIBUTES]
    assert view["response"][:] == ["one", "two", "Because.", "Who knows."]
    assert [[r[attribute] for attribute in ATTRIBUTES] for r in view] == [
        [0, 1, 2, 3, 4], [None, None, 3, None, None], [None] * 5, [None] * 5
    ]  # fmt: skip
    assert view["pair_id"][:] == [made[0]["pair_id"]] * 2 + [made[1]["pair_id"]] * 2


def compared(prompt: str, *outcomes: tuple[str, str, int | None]) -> list[dict[str, Any]]:
    return [row(prompt, one, two, preference=preference) for one, two, preference in outcomes]


def test_ranking_view_recovers_every_complete_order_from_its_comparisons() -> None:
    rng = np.random.default_rng(0)
    orders = {"".join(order): list(order) for order in itertools.permutations("abcd")}
    rows = []
    for name, order in orders.items():
        better_first = [(better, worse, -1) for better, worse in itertools.combinations(order, 2)]
        rows += compared(name, *(o if rng.random() < 0.5 else (o[1], o[0], 2) for o in better_first))
    view = pairs.ranking_view(table(*(rows[index] for index in rng.permutation(len(rows)))))
    assert {r["prompt"][0]["content"]: r["responses"] for r in view} == orders


def test_ranking_view_leaves_out_orders_that_are_not_complete_strict_and_free_of_cycles(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = (
        *compared("two responses only", ("a", "b", 1)),
        *compared("complete", ("a", "b", 1), ("b", "c", 1), ("a", "c", 3)),
        *compared("incomplete", ("a", "b", 1), ("b", "c", 1)),
        *compared("cyclic", ("a", "b", 1), ("b", "c", 1), ("c", "a", 1)),
        *compared("tied", ("a", "b", 0), ("b", "c", 1), ("a", "c", 1)),
        *compared("open", ("a", "b", None), ("b", "c", 1), ("a", "c", 1)),
        *compared("contradictory", ("a", "b", 1), ("b", "a", 1), ("b", "c", 1), ("a", "c", 1)),
    )
    made = make_pairs(rows, origin="test", repeats="first")  # else the contradiction would be a tie of two votes
    caplog.clear()
    view = pairs.ranking_view(made)
    assert [(r["prompt"][0]["content"], r["responses"]) for r in view] == [("complete", ["c", "b", "a"])]
    (message,) = caplog.messages
    assert message.startswith("ranking view: 1 prompts kept; left out: ")
    assert json.loads(message.split("left out: ")[1].replace("'", '"')) == {
        "incomplete": 1, "cyclic": 1, "tied or without a preference": 2, "contradictory": 1
    }  # fmt: skip
    assert pairs.unranked(made) == {
        "fewer than three responses": 1, "incomplete": 1, "cyclic": 1, "tied or without a preference": 2,
        "contradictory": 1,
    }  # fmt: skip


def prompts_of(dataset: Dataset) -> set[str]:
    return {prompt[0]["content"] for prompt in dataset["prompt"]}


def test_carving_keeps_every_row_once_and_never_splits_a_prompt() -> None:
    made = table(*(row(f"prompt {n // 2}", f"one {n}", f"two {n}") for n in range(200)))
    train, selection = pairs.carve_selection(made, 0.2, seed=3)
    assert (len(train), len(selection)) == (160, 40)
    assert sorted([*train["pair_id"], *selection["pair_id"]]) == sorted(made["pair_id"])
    assert not prompts_of(train) & prompts_of(selection)


def test_carving_depends_on_prompts_and_seed_and_not_on_the_order_of_rows() -> None:
    made = table(*(row(f"prompt {n}") for n in range(100)))
    backwards = made.select(range(99, -1, -1))
    chosen = prompts_of(pairs.carve_selection(made, 0.1, seed=0)[1])
    assert prompts_of(pairs.carve_selection(backwards, 0.1, seed=0)[1]) == chosen
    assert prompts_of(pairs.carve_selection(made, 0.1, seed=1)[1]) != chosen
    for fraction in (0, 0.001, 1):
        with pytest.raises(ValueError, match="leaves one part empty"):
            pairs.carve_selection(made, fraction, seed=0)


def test_the_content_hash_sees_texts_labels_and_split_and_not_the_order_of_rows() -> None:
    base = [row("A", preference=1, ratings_1=ratings(1, 2, 3, 4, 0)), row("B", preference=-1)]
    reference = pairs.content_hash(table(*base))
    assert len(reference) == 64
    assert pairs.content_hash(table(*base[::-1])) == reference
    changes: list[dict[str, Any]] = [
        {"preference": 2}, {"preference": None}, {"ratings_1": ratings(1, 2, 3, 4, 1)}, {"ratings_1": None},
        {"split": "validation"}, {"response_1": "Because!"}, {"prompt": [{"role": "user", "content": "C"}]},
    ]  # fmt: skip
    changed = [pairs.content_hash(table(base[0] | change, base[1])) for change in changes]
    assert len({reference, *changed}) == len(changes) + 1


def test_selecting_and_filtering_keep_where_the_preferences_come_from() -> None:
    made = make_pairs([row("A"), row("B")], origin="test", preferences=pairs.DERIVED)
    assert made.select([1]).info.description == "derived from helpfulness"
    assert pairs.carve_selection(made, 0.5, seed=0)[0].info.description == "derived from helpfulness"
