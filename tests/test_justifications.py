"""Reading of justifications against sentences and tables written by hand, and statsmodels."""

import gzip
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from rmlib.annotations import justifications, parsing
from rmlib.pairs import make_pairs

STATEMENT = "@Response 2 is slightly better than @Response 1"


def table_of(*pairs: Sequence[tuple[int | None, str | None]], preference: int | None = None) -> Dataset:
    """One pair for each list of (preference, justification)."""
    return make_pairs(
        [
            {
                "split": "train",
                "prompt": [{"role": "user", "content": f"question {number}"}],
                "response_1": "red red fish",
                "response_2": "blue fish",
                "preference": preference,
                "annotations": [
                    {"annotator": f"w{index}", "preference": vote, "justification": text}
                    | ({"ratings_1": {"helpfulness": 1}} if vote is None else {})
                    for index, (vote, text) in enumerate(annotations)
                ],
            }
            for number, annotations in enumerate(pairs)
        ],
        origin="test",
    )


@pytest.mark.parametrize(
    "parts",
    [
        ["It is short.", "It is right!", "Is it?", "Yes."],
        ["@Response 1 is better than @Response 2.", "It is clear."],
        ["It beats @Response 1.", "@Response 2 cites e.g. Dr. Jones vs. Mr. Day, i.e. two sources.", "Good."],
        ["a1 rambles.", "a2 is to the point."],  # small letters do not hinder
        ["It has lists, tables, etc. and more.", "It has lists, etc.", "It has more."],
        ["Well... it is fine.", "Well…", "It is fine."],
        ["Odd...", "Then it stops."],
        ['It says "Stop!" and stops.', 'It says "Stop!"', "Then it stops."],
        ["It is right (I checked.)", "Good."],
        ["1. It is short.", "2. It is right."],
        ["Reasons: 1. It is short.", "2. It is right."],
        ["It costs 3.50 in version 2.1 of it.", "He gave it 2.", "Enough."],
        ["J. R. Smith wrote it.", "John F. Smith read it.", "So do I.", "It is in Response A.", "Good."],
        ["**It is better.**", "Really?!", "Yes!!!"],
        ["It was at 5 p.m. on a Monday.", "See example.com/a.b for it"],
    ],
)
def test_a_text_is_cut_into_the_sentences_a_reader_sees(parts: list[str]) -> None:
    assert parsing.sentences("  ".join(parts)) == parts


def test_a_line_break_ends_a_sentence_and_empty_lines_are_none() -> None:
    assert parsing.sentences("- short\n- right\n\n1.\nlast") == ["- short", "- right", "1.", "last"]
    assert parsing.sentences(" \n ") == []


@given(st.text(st.sampled_from("aB1 .!?…\"')\n:"), max_size=40))
def test_no_character_but_white_space_is_lost_in_sentences(text: str) -> None:
    assert "".join("".join(parsing.sentences(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("justification", "statement", "elaboration"),
    [
        (f"It is short. {STATEMENT}.", f"{STATEMENT}.", "It is short."),
        (f"{STATEMENT} because it is short. It is right.", f"{STATEMENT} because it is short.", "It is right."),
        (f"{STATEMENT}. It is short. Therefore Response 2 is slightly better.", f"{STATEMENT}.", "It is short."),
        (f"Overall, {STATEMENT}. It is short. So {STATEMENT}.", f"Overall, {STATEMENT}.", "It is short."),
        (f"{STATEMENT}. @Response 1 is better at lists.", f"{STATEMENT}.", "@Response 1 is better at lists."),
        (f"{STATEMENT}. Response 1 is clearly worse than Response 2. Right.", f"{STATEMENT}.", "Right."),
        (f"{STATEMENT}.", f"{STATEMENT}.", None),
        ("It is short. It is right.", None, "It is short. It is right."),
        ("Thus Response 2 is better.\nIt is short.", None, "Thus Response 2 is better.\nIt is short."),
        ("  ", None, None),
    ],
)
def test_statement_and_elaboration_of_a_justification(
    justification: str, statement: str | None, elaboration: str | None
) -> None:
    assert parsing.split_statement(justification) == (statement, elaboration)


DEGREES = {-3: (1, "much "), -2: (1, ""), -1: (1, "slightly "), 1: (2, "slightly "), 2: (2, ""), 3: (2, "much ")}


@pytest.mark.parametrize("preference", DEGREES)
def test_every_preference_is_read_from_its_statement(preference: int) -> None:
    better, degree = DEGREES[preference]
    plain = f"@Response {better} is {degree}better than @Response {3 - better}."
    bold = f"Thus **Response {better}** is **{degree}better** than **@response {3 - better}**, as it is short"
    assert parsing.stated_preference(plain) == parsing.stated_preference(bold) == preference


@pytest.mark.parametrize(
    ("statement", "preference"),
    [
        ("@Response 1 is about the same as @Response 2.", 0),
        ("@Response 1 is better than @Response 1.", None),
        ("@Response 1 is not better than @Response 2.", None),
        ("I do not think that @Response 1 is better than @Response 2.", None),
        ("It does not help, so @Response 1 is better than @Response 2.", -2),
        ("@Response 12 is better than @Response 2.", None),
        ("@Response 1 is better written than @Response 2.", None),
        ("It is better.", None),
    ],
)
def test_what_says_no_preference_is_not_taken_for_one(statement: str, preference: int | None) -> None:
    assert parsing.stated_preference(statement) == preference


@pytest.mark.parametrize(
    ("text", "responses"),
    [
        ("@Response 1 is better.", {1}),
        ("response 2 rambles", {2}),
        ("A1 rambles.", {1}),
        ("a2's point is clear", {2}),
        ("A1 has facts, a2 has none", {1, 2}),
        ("A 1 is brief", {1}),
        ("Argument 1 is clear", {1}),
        ("argument #2, as a whole", {2}),
        ("Argument A2 is clear", {2}),
        ("argument one is clear", {1}),
        ("arguement two is clear", {2}),  # a frequent way to write it
        ("The first argument is clear, the second one is not", {1, 2}),
        ("the 2nd argument", {2}),
        ("better than number 2", {2}),
        ("Both are clear", {1, 2}),
        ("I like it, but neither argument has facts", {1, 2}),
        ("It is funny. Neither has facts.", {1, 2}),
        ("each argument has facts", {1, 2}),
        ("It is both short and clear", set()),
        ("It considers both sides", set()),
        ("It is a 1 in a million chance", set()),
        ("At first it is clear, in 2 sentences, a100", set()),
        ("In the first place it is clear", set()),
        ("", set()),
    ],
)
def test_the_responses_that_a_text_names(text: str, responses: set[int]) -> None:
    assert parsing.named(text) == responses


@pytest.mark.parametrize(
    ("text", "aspects"),
    [
        ("It is more HELPFUL.", {"helpfulness"}),
        ("Accurate and in-depth", {"correctness", "complexity"}),
        ("Two errors, and hard to follow", {"correctness", "coherence"}),
        ("too long, with a bulleted table", {"verbosity", "formatting"}),
        ("It ignores what was asked; off-topic.", {"instruction_following", "relevance"}),
        ("It refuses, politely", {"safety", "tone"}),
        ("an example", {"examples"}),
        ("a hard-to-follow plot", {"coherence"}),
        ("It belongs to a charming brotherhood", set()),  # long, harm, other: inside of words
        ("", set()),
    ],
)
def test_aspects_are_found_by_whole_words_and_stems(text: str, aspects: set[str]) -> None:
    assert parsing.mentions(text) == aspects


PAIRS = (
    [(1, f"It is clear. {STATEMENT}."), (-3, "A1 is much more helpful"), (2, f"{STATEMENT}.")],
    [(-100, "Both are wrong."), (None, "Only rated, clear"), (0, None), (0, " ")],
)


def test_the_frame_has_one_row_for_each_annotation_with_a_text() -> None:
    pairs = table_of(*PAIRS)
    table = justifications.frame(pairs)
    first, second = pairs["pair_id"]
    assert table["pair_id"].tolist() == [first] * 3 + [second] * 2
    assert table["annotator"].tolist() == ["w0", "w1", "w2", "w0", "w1"]
    assert table["preference"].fillna(99).tolist() == [1, -3, 2, -100, 99]
    assert table["strength"].fillna(99).tolist() == [1, 3, 2, 99, 99]
    assert table["words"].tolist() == [11, 5, 8, 3, 3] and table["sentences"].tolist() == [2, 1, 1, 1, 1]
    assert table["names_1"].tolist() == [True, True, True, True, False]
    assert table["names_2"].tolist() == [True, False, True, True, False]
    assert table["says"].fillna(99).tolist() == [1, 99, 1, 99, 99]
    assert table["coherence"].tolist() == [True, False, False, False, True]
    assert table["correctness"].tolist() == [False, False, False, True, False]


def test_a_text_may_come_as_statement_and_elaboration_alone() -> None:
    row = table_of([(1, None)])[0] | {"pair_id": None}
    row["annotations"][0] |= {"statement": f"{STATEMENT}.", "elaboration": "It is clear."}
    (found,) = justifications.frame(make_pairs([row], origin="test")).to_dict("records")
    assert (found["words"], found["says"], found["coherence"]) == (11, 1, True)


def test_contradictions_are_the_rows_that_say_another_preference_than_was_given() -> None:
    found = justifications.contradictions(justifications.frame(table_of(*PAIRS)))
    assert found[["annotator", "preference", "says"]].to_numpy().tolist() == [["w2", 2, 1]]


def random_frame(seed: int, n_pairs: int = 60) -> pd.DataFrame:
    """Three annotations a pair whose strengths resemble each other; "clear" goes with strength 3."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(n_pairs):
        strengths = np.clip(rng.integers(1, 4) + rng.integers(-1, 2, size=3), 1, 3)
        pairs.append([(int(s), "clear" if rng.random() < s / 4 else "good") for s in strengths])
    return justifications.frame(table_of(*pairs))


def test_the_aspect_table_is_that_of_pandas_and_statsmodels() -> None:
    table = random_frame(0)
    row = justifications.aspect_table(table, seed=0).loc["coherence"]
    mentioned = table["coherence"]
    assert (row["n"], row["share"]) == (mentioned.sum(), pytest.approx(mentioned.mean()))
    interval = proportion_confint(mentioned.sum(), len(table), method="wilson")
    assert (row["share_low"], row["share_high"]) == pytest.approx(interval)
    assert np.isnan(row["share_0"])
    for strength in (1, 2, 3):
        assert row[f"share_{strength}"] == pytest.approx(mentioned[table["strength"] == strength].mean())
    with_, without = table.loc[mentioned, "strength"].mean(), table.loc[~mentioned, "strength"].mean()
    assert (row["strength_with"], row["strength_without"]) == pytest.approx((with_, without))
    assert row["difference"] == pytest.approx(with_ - without)
    assert row["difference_low"] < row["difference"] < row["difference_high"]


def test_the_interval_does_not_shrink_when_every_annotation_is_there_five_times() -> None:
    table = random_frame(1)
    once = justifications.aspect_table(table, seed=0).loc["coherence", ["difference_low", "difference_high"]]
    repeated = justifications.aspect_table(pd.concat([table] * 5), seed=0)
    five = repeated.loc["coherence", ["difference_low", "difference_high"]]
    assert five.tolist() == pytest.approx(once.tolist())


def test_the_interval_has_the_width_that_independent_pairs_imply() -> None:
    rng = np.random.default_rng(2)
    votes = [(int(s), "clear" if rng.random() < 0.5 else "good") for s in rng.integers(1, 4, size=600)]
    table = justifications.frame(table_of(*([vote] for vote in votes)))
    row = justifications.aspect_table(table, seed=0).loc["coherence"]
    groups = [table.loc[table["coherence"] == value, "strength"].astype(float) for value in (True, False)]
    error = math.sqrt(sum(group.var() / len(group) for group in groups))
    assert row["difference_high"] - row["difference_low"] == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_an_aspect_that_nobody_mentions_has_a_share_of_zero_and_no_difference() -> None:
    row = justifications.aspect_table(random_frame(0), seed=0).loc["safety"]
    assert row["n"] == row["share"] == row["share_low"] == 0 < row["share_high"]
    assert np.isnan(row["strength_with"]) and np.isnan(row["difference_low"])


def test_the_length_table_is_that_of_numpy() -> None:
    table = justifications.length_table(justifications.frame(table_of([(1, "a b c"), (-1, "Yes. No."), (3, "a b")])))
    assert table.loc[1].tolist() == pytest.approx([2, 2.5, 2.5, np.std([3, 2], ddof=1), 1.5])
    assert table.index.tolist() == [1, 3] and table.loc[3, "n"] == 1


def test_tables_of_nothing_are_refused() -> None:
    empty = justifications.frame(table_of([(None, "rated only")]))
    with pytest.raises(ValueError, match="both a text and a preference"):
        justifications.length_table(empty)
    with pytest.raises(ValueError, match="both a text and a preference"):
        justifications.aspect_table(empty, seed=0)


def series(*texts: str) -> pd.Series:
    return pd.Series(texts, index=[f"pair {number}" for number in range(len(texts))])


def test_log_odds_worked_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(justifications, "PRIOR", 8)
    monkeypatch.setattr(justifications, "MIN_PAIRS", 1)
    # a: red 3, fish 1 of 4 words; b: red 1, fish 3 of 4. With 8 pseudo-counts, half of them each: 4 and 4.
    found = justifications.log_odds(series("Red red", "fish red"), series("red fish", "fish, fish!"))
    by_hand = math.log((3 + 4) / (4 + 8 - 3 - 4)) - math.log((1 + 4) / (4 + 8 - 1 - 4))  # log(7/5) - log(5/7)
    z = by_hand / math.sqrt(1 / 7 + 1 / 5)
    assert found["word"].tolist() == ["red", "fish"]
    assert found[["count_a", "count_b", "pairs"]].to_numpy().tolist() == [[3, 1, 2], [1, 3, 2]]
    assert found["log_odds"].tolist() == pytest.approx([by_hand, -by_hand])
    assert found["z"].tolist() == pytest.approx([z, -z])


def test_exchanging_the_sides_turns_every_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(justifications, "MIN_PAIRS", 1)
    a, b = series("one two two", "three"), series("two three three three", "four")
    forth = justifications.log_odds(a, b).set_index("word")["z"]
    back = justifications.log_odds(b, a).set_index("word")["z"]
    assert forth.to_dict() == pytest.approx((-back).to_dict())


def test_a_word_of_one_pair_is_not_shown_however_often_it_occurs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(justifications, "MIN_PAIRS", 2)
    a = pd.Series(["loud loud loud word", "loud word", "word"], index=["p", "p", "q"])
    found = justifications.log_odds(a, pd.Series(["word"], index=["q"]))
    assert found[["word", "count_a", "pairs"]].to_numpy().tolist() == [["word", 3, 2]]


@pytest.mark.parametrize("texts", [(), ("...",)])
def test_a_side_without_words_is_refused(texts: tuple[str, ...]) -> None:
    for sides in ((series("word"), series(*texts)), (series(*texts), series(*texts))):
        with pytest.raises(ValueError, match="texts on both sides"):
            justifications.log_odds(*sides)


def test_sentences_about_the_winner_and_about_the_loser_are_told_apart_by_each_annotator_s_own_vote() -> None:
    pairs = table_of(
        [(2, f"A2 is clear. The first argument rambles. {STATEMENT}."), (-1, "A2 is dull. It is long.")],
        [(0, "A1 is clear."), (-100, "A1 is bad."), (None, "A1 is odd.")],
    )
    winner, loser = justifications.about_winner_and_loser(pairs)
    assert [text.split() for text in winner] == [["is", "clear."]]
    assert [text.split() for text in loser] == [["The", "rambles."], ["is", "dull."]]
    assert set(winner.index) | set(loser.index) == {pairs["pair_id"][0]}


def real_votes(folder: Path, n_pairs: int) -> Dataset:
    """The first pairs of UKPConvArg1 with the workers' votes and reasons; their arguments are not needed here."""
    with gzip.open(folder / "pairs.jsonl.gz", "rt", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = [json.loads(line) for line, _ in zip(file, range(n_pairs), strict=False)]
    votes = {"a1": -1, "equal": 0, "a2": 1}
    return table_of(*([(votes[vote["value"]], vote["reason"]) for vote in row["votes"]] for row in rows))


def test_real_reasons_mostly_name_an_argument_and_praise_it_with_other_words_than_they_blame(
    shared_data: Callable[[str], Path],
) -> None:
    pairs = real_votes(shared_data("ukpconvarg1"), 3000)
    table = justifications.frame(pairs)
    assert len(table) > 14_000 and table["says"].isna().all()
    assert (table["names_1"] | table["names_2"]).mean() > 0.85
    one = table[table["names_1"] ^ table["names_2"]]
    decided = one[one["preference"] != 0]
    assert (decided["names_2"] == (decided["preference"] > 0)).mean() > 0.5  # workers speak of the winner more often
    words = justifications.log_odds(*justifications.about_winner_and_loser(pairs))["word"].tolist()
    assert {"more", "better"} <= set(words[:10]) and {"not", "doesn't"} <= set(words[-10:])
