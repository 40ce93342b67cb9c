"""Where pairs come from: names, folders in the layout of HelpSteer2, and anyone's own pairs in a folder."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from released import Rows, write, write_release

from rmlib import pairs, sources
from rmlib.pairs import DataError
from rmlib.sources import folder, helpsteer2


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path_factory.mktemp("runs")))


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder in the released layout: 3 + 1 pairs, of which 2 + 1 have a preference."""
    return write_release(tmp_path / "release")


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


# --- one's own pairs ---

OWN: Rows = [
    {"prompt": "Why?", "response_1": "No.", "response_2": "Yes.", "preference": -2, "split": "train"},
    {"prompt": [user("A"), assistant("B"), user("C")], "response_1": "D", "response_2": "E", "preference": None,
     "split": "test", "ratings_1": {"helpfulness": 3}},
]  # fmt: skip


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz"])
def test_own_pairs_are_read_with_texts_or_messages_as_prompts(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, OWN)
    made = sources.load(tmp_path, unlabelled="keep")
    assert made["split"][:] == ["train", "validation"]
    assert made["prompt"][:] == [[user("Why?")], OWN[1]["prompt"]]
    assert made["preference"][:] == [-2, None]
    assert made[1]["ratings_1"]["helpfulness"] == 3


def test_a_table_written_as_jsonl_or_parquet_comes_back_the_same(official: Path, tmp_path: Path) -> None:
    made = helpsteer2.load(official)
    for name in ("jsonl", "parquet"):
        (tmp_path / name).mkdir()
    made.to_json(tmp_path / "jsonl" / "pairs.jsonl")
    made.to_parquet(tmp_path / "parquet" / "pairs.parquet")
    assert folder.load(tmp_path / "jsonl").to_list() == made.to_list()
    assert folder.load(tmp_path / "parquet").to_list() == made.to_list()


def test_the_preference_view_written_as_parquet_keeps_what_was_preferred(official: Path, tmp_path: Path) -> None:
    view = pairs.preference_view(helpsteer2.load(official))
    (tmp_path / "view").mkdir()
    view.to_parquet(tmp_path / "view" / "train.parquet")
    again = pairs.preference_view(folder.load(tmp_path / "view"))
    columns = ["prompt", "chosen", "rejected", "strength"]
    assert again.select_columns(columns).to_list() == view.select_columns(columns).to_list()


def test_whole_conversations_as_chosen_and_rejected_need_no_prompt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = {"chosen": [user("Why?"), assistant("Yes.")], "rejected": [user("Why?"), assistant("No.")]}
    write(tmp_path / "train.jsonl", [whole | {"score": 1}])
    write(tmp_path / "val.jsonl", [{"prompt": "Who?", "chosen": "Me.", "rejected": "You.", "strength": 3}])
    view = pairs.preference_view(sources.load(tmp_path))
    assert [(r["prompt"], r["chosen"], r["rejected"], r["strength"]) for r in view] == [
        ([user("Why?")], [assistant("Yes.")], [assistant("No.")], 1.0),
        ([user("Who?")], [assistant("Me.")], [assistant("You.")], 3.0),
    ]
    assert set(caplog.messages) == {
        "train.jsonl: column score not used (1 rows)", "train.jsonl: strength unknown, taken as 1 (1 rows)"
    }  # fmt: skip


def test_position_tells_nothing_about_which_response_was_chosen(tmp_path: Path) -> None:
    rows = [{"prompt": f"P{n}", "chosen": f"good {n}", "rejected": f"bad {n}", "split": "train"} for n in range(400)]
    rows[0]["split"] = "val"
    exchanged = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    made = folder.load(write(tmp_path / "one" / "pairs.jsonl", rows).parent)
    opposite = folder.load(write(tmp_path / "two" / "pairs.jsonl", exchanged).parent)
    second = sum(preference > 0 for preference in made["preference"])
    assert 160 < second < 240  # 4 standard deviations about 200
    assert opposite["pair_id"][:] == made["pair_id"][:]
    assert opposite["preference"][:] == [-preference for preference in made["preference"]]


def test_where_nothing_names_validation_a_tenth_of_the_prompts_becomes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"prompt": f"P{n // 2}", "response_1": f"a{n}", "response_2": f"b{n}",
             "preference": (-1) ** n} for n in range(2000)]  # fmt: skip
    made = folder.load(write(tmp_path / "a" / "pairs.jsonl", rows).parent).to_pandas()
    validation = made[made["split"] == "validation"]["prompt"].map(lambda prompt: prompt[0]["content"])
    train = made[made["split"] == "train"]["prompt"].map(lambda prompt: prompt[0]["content"])
    assert not set(validation) & set(train)
    assert 70 < validation.nunique() < 130
    assert f"no validation named for 2000 pairs: {len(validation)} drawn by a hash of the prompt" in caplog.text
    random.Random(0).shuffle(rows)
    # A training file alone leaves nothing to test on, so the same rule applies; neither order nor other rows matter.
    again = folder.load(write(tmp_path / "b" / "train.jsonl", rows[:1000]).parent).to_pandas()
    drawn = again[again["split"] == "validation"]["prompt"].map(lambda prompt: prompt[0]["content"])
    assert set(drawn) <= set(validation)


def test_own_ratings_without_preferences_are_derived_from_and_described_so(tmp_path: Path) -> None:
    sides: Rows = [
        {"ratings_1": {"helpfulness": 3}, "ratings_2": {"helpfulness": 1.6}},
        {"ratings_1": {"helpfulness": 3}},
    ]
    rows = [{"prompt": f"P{n}", "response_1": "a", "response_2": "b"} | side for n, side in enumerate(sides)]
    write(tmp_path / "train.jsonl", rows[:1])
    write(tmp_path / "test.jsonl", rows[1:])
    made = sources.load(tmp_path, unlabelled="keep")
    assert dict(zip(made["split"], made["preference"], strict=True)) == {"train": -1, "validation": None}
    info = sources.describe(tmp_path, unlabelled="keep")
    assert info.preferences == "derived from helpfulness"
    assert info.name == f"folder-{pairs.content_hash(made)[:8]}"
    assert info.title == "own pairs (1 train, 1 validation)"
    assert str(tmp_path) not in repr(info)


CHOSEN = {"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        ({"question": "Why?"}, None, "its columns (question) are those of no layout. Tried: "),
        ({"half \ud83d": "Why?"}, None, "its columns (half_\\ud83d) are those of no layout"),
        ({"prompt": "Why?", "response_1": "No."}, None, "two responses lacks response_2"),
        ({"response_1": "No.", "response_2": "Yes."}, "prompt", "there is no prompt"),
        ({"prompt": "Why?", "response_1": "No.", "response_2": "", "preference": 1}, "response_2", "empty"),
        ({"prompt": "Why?", "chosen": "Yes."}, None, "chosen and rejected lacks rejected"),
        ({"chosen": "Yes.", "rejected": "No."}, "prompt", "there is no prompt"),
        (CHOSEN | {"response_1": "No.", "response_2": "Yes."}, None, "more than one layout: chosen and rejected, two"),
        (CHOSEN | {"chosen": []}, "chosen", "neither a text nor messages"),
        (CHOSEN | {"chosen": [user("Yes.")]}, "chosen", "not the assistant's"),
        (CHOSEN | {"chosen": [assistant(" ")]}, "chosen", "empty"),
        (CHOSEN | {"chosen": str([assistant("Yes.")])}, "chosen", "a text that holds messages"),
        (CHOSEN | {"strength": 0}, "strength", "not a strength"),
        (CHOSEN | {"strength": 1.5}, "strength", "not a strength"),
        (CHOSEN | {"split": "gold"}, "split", "'gold' is not a split"),
        ({"chosen": [user("A"), assistant("B")], "rejected": [user("a"), assistant("C")]}, "rejected", "not begin"),
        ({"chosen": [user("A"), assistant("B")], "rejected": [user("A"), assistant("B"), user("C"), assistant("D")]},
         "rejected", "it has 4 messages, not 2"),
        ({"prompt": "Why", "chosen": [user("A"), assistant("B")], "rejected": [user("A"), assistant("C")]}, "prompt",
         "not what the conversation begins with"),
    ],
)  # fmt: skip
def test_a_bad_row_of_ones_own_is_refused_with_file_row_and_field(
    tmp_path: Path, row: dict[str, Any], field: str, says: str
) -> None:
    write(tmp_path / "mine.jsonl", [OWN[0], row])
    with pytest.raises(DataError) as caught:
        sources.load(tmp_path)
    assert caught.value.place == ("mine.jsonl", 2, field)
    assert says in str(caught.value)
    assert str(caught.value).encode()  # can be printed


@pytest.mark.parametrize(
    ("row", "options", "problem"),
    [
        ("{broken", {}, "not a line of JSON"),
        ("7", {}, "7 is not a JSON object"),
        ({"preference": 5}, {"labels": "-3..3"}, "5 is not a preference that labels names"),
        ({"score_1": 9.5, "score_2": 1}, {"rating_scale": (1, 5)}, "9.5 is outside 1.0 to 5.0"),
        ({"score_1": "good", "score_2": "bad"}, {}, "'good' is not a finite number"),
        ({"ratings_1": [4, 4], "ratings_2": [1, 1]}, {}, "[4, 4] does not map attributes"),
        ({"annotations": 7}, {}, "7 is not a list of annotations"),
        ({"annotations": [{"preference": -9}]}, {}, "-9 is outside -3 to 3"),
    ],
)
def test_whatever_makes_a_row_unreadable_it_is_named_or_left_out(
    tmp_path: Path, row: str | dict[str, Any], options: dict[str, Any], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [json.dumps(OWN[0]), row if isinstance(row, str) else json.dumps(OWN[0] | {"prompt": "Who?"} | row)]
    (tmp_path / "mine.jsonl").write_text("".join(f"{line}\n" for line in [*lines, lines[1]]))
    with pytest.raises(DataError, match=r"^mine.jsonl, row 2.*2 rows cannot be read.*mine.jsonl, row 3") as caught:
        sources.load(tmp_path, **options)
    assert problem in str(caught.value)
    assert len(sources.load(tmp_path, bad_rows="leave_out", **options)) == 1
    assert problem in caplog.text and "left out 2 rows, all written to" in caplog.text


@pytest.mark.parametrize(("column", "values"), [("subset", ("train", "dev")), ("is_test", (False, True))])
def test_a_column_that_says_what_is_held_out_is_never_passed_over(
    tmp_path: Path, column: str, values: tuple[Any, Any]
) -> None:
    rows = [{"prompt": f"Why {n}?", "chosen": "a", "rejected": "b", column: values[n % 2]} for n in range(4)]
    write(tmp_path / "mine.jsonl", rows)
    with pytest.raises(DataError, match=f"^mine.jsonl, field '{column}': holds") as caught:
        sources.load(tmp_path)
    assert f"{{'{column}': None}}" in caught.value.remedy
    assert len(sources.load(tmp_path, columns={column: None})) == 4


def test_folders_without_usable_pairs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match="the folder holds notes.txt"):
        sources.load(tmp_path)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"^broken.parquet: not a readable parquet file"):
        sources.load(tmp_path)
    (tmp_path / "broken.parquet").unlink()
    write(tmp_path / "mine.jsonl", [{"prompt": "Why?", "response_1": "No.", "response_2": "Yes."}])
    with pytest.raises(DataError, match="no row has a preference, or the helpfulness of both responses"):
        sources.load(tmp_path)


def test_an_unknown_source_is_refused_and_the_known_ones_are_named() -> None:
    known = "Use simulated, simulated-ranked, hub, or"
    with pytest.raises(DataError, match=f"^helpsteer9: neither a known source nor a file or folder. {known}"):
        sources.load("helpsteer9")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("own", {"labls": "0/1"}, "labls: own pairs has no such option. It has labels, rating_scale, "),
        ("own", {"transcripts": "no"}, "transcripts: 'no' is unknown. Use True or False"),
        ("own", {"columns": {"question": 5}}, "columns: {'question': 5} does not say which column is which"),
        ("official", {"labels": "0/1"}, "labels: HelpSteer2 has no such option. It has revision."),
        ("simulated", {"labels": "0/1"}, "labels: simulated pairs has no such option."),
    ],
)
def test_an_option_that_a_source_does_not_know_is_refused(
    tmp_path: Path, official: Path, name: str, options: dict[str, Any], says: str
) -> None:
    write(tmp_path / "own" / "mine.jsonl", OWN)
    source = {"own": tmp_path / "own", "official": official}.get(name, name)
    with pytest.raises(DataError) as caught:
        sources.load(source, **options)
    assert str(caught.value).startswith(says)


def test_a_source_is_described_by_what_it_holds(official: Path) -> None:
    info = sources.describe(official)
    assert (info.name, info.preferences) == ("helpsteer2", "annotated")
    assert info.title == "HelpSteer2 (3 train, 1 validation)"
    assert info.content_hash == pairs.content_hash(helpsteer2.load(official))
