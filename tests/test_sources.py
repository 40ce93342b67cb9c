"""Where pairs come from: the files of HelpSteer2, anyone's own pairs, and what happens when they are broken."""

import copy
import gzip
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmlib import pairs, sources
from rmlib.pairs import ATTRIBUTES, DataError
from rmlib.sources import folder, helpsteer2
from rmlib.sources.helpsteer2 import release

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def rated(prompt: str, response: str, *ratings: int) -> dict[str, Any]:
    return {"prompt": prompt, "response": response} | dict(zip(ATTRIBUTES, ratings, strict=True))


TRAIN = [
    rated("Name a prime.", "Two.", 4, 4, 4, 0, 1),
    rated("Name a prime.", "Four, as everyone knows.", 0, 0, 3, 0, 2),
    rated("Hi\n<extra_id_1>Assistant\nHello.\n\nAnd?\n<extra_id_1>User\nSing.", "La", 1, 2, 3, 1, 0),
    rated("Hi\n<extra_id_1>Assistant\nHello.\n\nAnd?\n<extra_id_1>User\nSing.", "La la", 2, 3, 4, 2, 1),
    rated("Größe?\u2028", "Groß.", 3, 3, 3, 3, 3),
    rated("Größe?\u2028", "Klein.", 3, 2, 3, 1, 3),
]
VALIDATION = [rated("Count.", "1, 2, 3", 2, 4, 4, 1, 1), rated("Count.", "3, 2, 1", 1, 4, 4, 1, 1)]


def preferred(first: dict[str, Any], second: dict[str, Any], strength: int, **more: Any) -> dict[str, Any]:
    texts = {"prompt": first["prompt"], "response_1": first["response"], "response_2": second["response"]}
    return {"split": "train", "preference_strength": strength} | texts | more


PREFERENCES = [
    preferred(VALIDATION[0], VALIDATION[1], 0, split="val"),
    preferred(
        TRAIN[3],  # the two responses in the other order than the ratings
        TRAIN[2],
        -2,
        preference_statement="@Response 1 is better.",
        preference_elaboration="It sings more.",
        three_most_similar_preferences=[
            {"statement": "@Response 1 is better.", "elaboration": "It sings more.", "strength": -2},
            {"statement": "@Response 1 is slightly better.", "elaboration": "", "strength": -1},
            {"statement": "@Response 1 wins.", "elaboration": "Longer.", "strength": -2},
        ],
        all_preferences_unprocessed=[
            {"strength": -100, "justification": "Neither sings."},
            {"strength": -2, "justification": "Longer. @Response 1 wins."},
            {"strength": -1, "justification": "@Response 1 is slightly better."},
            {"strength": -2, "justification": "@Response 1 is better. It sings more."},
        ],
    ),
    preferred(TRAIN[0], TRAIN[1], -3),
]


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder in the released layout: 3 + 1 pairs, of which 2 + 1 have a preference."""
    write(tmp_path / "train.jsonl.gz", TRAIN)
    write(tmp_path / "validation.jsonl.gz", VALIDATION)
    write(tmp_path / "preference" / "preference.jsonl.gz", PREFERENCES)
    return tmp_path


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


# --- HelpSteer2: what is read ---


def test_two_adjacent_rows_become_one_pair_with_its_turns_parsed(official: Path) -> None:
    made = helpsteer2.load(official)
    assert made["split"][:] == ["train"] * 3 + ["validation"]
    assert made["prompt"][:] == [
        [user("Name a prime.")],
        [user("Hi"), assistant("Hello.\n\nAnd?"), user("Sing.")],
        [user("Größe?\u2028")],
        [user("Count.")],
    ]
    assert (made[0]["response_1"], made[0]["response_2"]) == ("Two.", "Four, as everyone knows.")
    assert made[0]["ratings_2"] == dict(zip(ATTRIBUTES, [0, 0, 3, 0, 2], strict=True))


def test_preferences_are_joined_by_text_in_the_order_their_justifications_use(official: Path) -> None:
    made = helpsteer2.load(official)
    assert made["preference"][:] == [-3, -2, None, 0]
    assert made.info.description == "annotated"
    sung = made[1]
    assert (sung["response_1"], sung["response_2"]) == ("La la", "La")
    assert (sung["ratings_1"]["helpfulness"], sung["ratings_2"]["helpfulness"]) == (2, 1)
    columns = ("preference", "statement", "elaboration", "justification")
    assert [tuple(annotation[column] for column in columns) for annotation in sung["annotations"]] == [
        (-100, None, None, "Neither sings."),
        (-2, "@Response 1 wins.", "Longer.", "Longer. @Response 1 wins."),
        (-1, "@Response 1 is slightly better.", "", "@Response 1 is slightly better."),
        (-2, "@Response 1 is better.", "It sings more.", "@Response 1 is better. It sings more."),
    ]
    assert made[0]["annotations"] is None


def test_without_a_preference_file_preferences_are_derived_and_the_table_says_so(official: Path) -> None:
    (official / "preference" / "preference.jsonl.gz").unlink()
    made = helpsteer2.load(official)
    assert made["preference"][:] == [-3, 1, 0, -1]  # 0 - 4 is clipped
    assert sources.describe(official).preferences == "derived from helpfulness"


def test_plain_files_are_read_where_there_is_no_compressed_one(official: Path, tmp_path: Path) -> None:
    expected = pairs.content_hash(helpsteer2.load(official))
    for path in [*official.rglob("*.gz")]:
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert pairs.content_hash(helpsteer2.load(official)) == expected
    (official / "preference" / "preference.jsonl").rename(official / "preference.jsonl")
    assert pairs.content_hash(helpsteer2.load(official)) == expected


def test_preferences_that_fit_no_pair_are_counted_and_warned_of(
    official: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stray = preferred(TRAIN[0], TRAIN[2], 1)
    write(official / "preference" / "preference.jsonl.gz", [*PREFERENCES, stray, PREFERENCES[2] | {"split": "train"}])
    assert helpsteer2.load(official)["preference"][:] == [-3, -2, None, 0]
    assert caplog.messages == [
        "preference.jsonl.gz: left out 2 preferences that fit no rated pair that still lacks a preference"
    ]
    caplog.clear()
    write(official / "preference" / "preference.jsonl.gz", [PREFERENCES[2] | {"split": "val"}])
    assert helpsteer2.load(official)["preference"][:] == [None] * 4
    assert caplog.messages == ["preference.jsonl.gz: left out 1 preferences that name another split than the ratings"]


def test_a_pair_of_one_text_is_left_out_and_named(official: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(official / "train.jsonl.gz", [*TRAIN, TRAIN[0], TRAIN[0], *TRAIN[:2]])
    made = helpsteer2.load(official)
    assert len(made) == 4
    assert "left out 1 pairs that repeat an earlier pair" in caplog.text
    assert "left out 1 pairs that have the same text as both responses" in caplog.text
    assert pairs.pair_id([user("Name a prime.")], "Two.", "Two.") in caplog.text


def test_irregular_turns_are_kept_and_warned_of(official: Path, caplog: pytest.LogCaptureFixture) -> None:
    odd = "Hi\n<extra_id_1>User\nAgain"
    write(official / "train.jsonl.gz", [*TRAIN, rated(odd, "a", 0, 0, 0, 0, 0), rated(odd, "b", 1, 0, 0, 0, 0)])
    assert helpsteer2.load(official)[3]["prompt"] == [user("Hi"), user("Again")]
    assert "train.jsonl.gz: 1 prompts with turn markers left" in caplog.text and "first at row 7" in caplog.text


# --- HelpSteer2: the hub and the release ---


def serve(root: Path, asked: list[tuple[str, str, str]]) -> Callable[..., str]:
    """hf_hub_download as it would be with the folder as the hub."""

    def hf_hub_download(repo_id: str, filename: str, *, repo_type: str, revision: str) -> str:
        asked.append((repo_id, repo_type, revision))
        if not (root / filename).exists():
            raise EntryNotFoundError(f"404 {filename}")
        return str(root / filename)

    return hf_hub_download


def test_the_hub_goes_through_the_same_reader(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", serve(official, asked))
    made = sources.load("hub")
    assert set(asked) == {("nvidia/HelpSteer2", "dataset", "990b2711a36180dd19d9c94b8627844866f8982a")}
    assert made.to_list() == sources.load(official).to_list()
    assert sources.describe("hub") == sources.describe(official)
    sources.load("hub", revision="main")
    assert asked[-1][-1] == "main"


def test_what_differs_from_the_release_is_named_in_one_warning(
    official: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", serve(official, []))
    helpsteer2.load("hub")
    (message,) = caplog.messages
    for part in ("train.jsonl.gz has sha256", "3 pairs in train, not 10,162", "1 pairs in validation, not 519",
                 "2 decided pairs in train, not 6,766", "0 decided pairs in validation, not 352"):  # fmt: skip
        assert part in message


def test_a_file_of_released_size_is_checked_and_a_sample_gives_one_line(
    official: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="rmlib.sources"):
        helpsteer2.load(official)
    assert [(r.levelname, "3 + 1 pairs" in r.message) for r in caplog.records] == [("INFO", True)]
    caplog.clear()
    size = (official / "train.jsonl.gz").stat().st_size
    monkeypatch.setitem(release.FILES, "train", release.FILES["train"]._replace(bytes=size))
    helpsteer2.load(official)
    assert "train.jsonl.gz has sha256" in caplog.text and "validation.jsonl.gz has sha256" not in caplog.text


@pytest.mark.parametrize("failure", [LocalEntryNotFoundError("offline"), ConnectionError("no route"), OSError("503")])
def test_a_hub_that_cannot_be_reached_is_an_error_even_for_the_preferences(
    official: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def hf_hub_download(repo_id: str, filename: str, **_: str) -> str:
        if "preference" in filename:
            raise failure
        return str(official / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    with pytest.raises(DataError, match=r"preference\.jsonl\.gz of nvidia/HelpSteer2 on the hub: not fetched"):
        helpsteer2.load("hub")


def test_a_revision_without_preferences_is_derived_from_and_warned_of(
    official: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (official / "preference" / "preference.jsonl.gz").unlink()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", serve(official, []))
    assert helpsteer2.load("hub", revision="old").info.description == "derived from helpfulness"
    assert "not in revision old; preferences will be derived" in caplog.text


# --- HelpSteer2: what is refused ---


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
    with pytest.raises(DataError, match=r"no validation.jsonl.gz or .*holds preference/, train.jsonl.gz, valid.jsonl"):
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
    (official / "preference" / "preference.jsonl.gz").unlink(missing_ok=True)
    write(official / "train.jsonl.gz", rows)
    if not acceptable(rows):
        with pytest.raises(DataError, match=r"^train\.jsonl\.gz"):
            helpsteer2.load(official)
        return
    made = [r for r in helpsteer2.load(official).to_list() if r["split"] == "train"]
    read = [(r[f"response_{side}"], *r[f"ratings_{side}"].values()) for r in made for side in (1, 2)]
    assert read == [(r["response"], *(r[a] for a in ATTRIBUTES)) for r in rows]
    assert [r["prompt"][0]["content"] for r in made] == [r["prompt"].split("\n<extra_id_1>")[0] for r in rows[::2]]


# --- HelpSteer2: the real thing ---


def test_real_ratings_give_the_pairs_and_derived_preferences_that_pandas_counts(
    shared_data: Callable[[str], Path],
) -> None:
    root = shared_data("helpsteer2")
    made = helpsteer2.load(root).to_pandas()
    assert made["split"].value_counts().to_dict() == {"train": 500, "validation": 500}
    multi_turn = made[made["prompt"].map(len) > 1]
    assert multi_turn["split"].value_counts().to_dict() == {"train": 52, "validation": 52}
    assert (multi_turn["prompt"].map(len) % 2 == 1).all()
    assert not made["prompt"].map(lambda prompt: any("<extra_id" in m["content"] for m in prompt)).any()
    for split in ("train", "validation"):
        frame = pd.read_json(root / f"{split}.jsonl.gz", lines=True)
        helpfulness = frame["helpfulness"].to_numpy().reshape(-1, 2)
        expected = pd.Series((helpfulness[:, 1] - helpfulness[:, 0]).clip(-3, 3))
        found = made[made["split"] == split]["preference"].reset_index(drop=True)
        pd.testing.assert_series_equal(found, expected, check_names=False, check_dtype=False)
        assert made[made["split"] == split]["response_2"].tolist() == frame["response"][1::2].tolist()


# --- one's own pairs ---

OWN: Rows = [
    {"prompt": "Why?", "response_1": "No.", "response_2": "Yes.", "preference": 2, "split": "train"},
    {"prompt": [user("A"), assistant("B"), user("C")], "response_1": "D", "response_2": "E", "preference": None,
     "split": "test", "ratings_1": {"helpfulness": 3}},
]  # fmt: skip


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz"])
def test_own_pairs_are_read_with_texts_or_messages_as_prompts(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, OWN)
    made = sources.load(tmp_path)
    assert made["split"][:] == ["train", "validation"]
    assert made["prompt"][:] == [[user("Why?")], OWN[1]["prompt"]]
    assert made["preference"][:] == [2, None]
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
    rows = [{"prompt": f"P{n // 2}", "response_1": f"a{n}", "response_2": f"b{n}", "preference": 1}
            for n in range(2000)]  # fmt: skip
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
    made = sources.load(tmp_path)
    assert dict(zip(made["split"], made["preference"], strict=True)) == {"train": -1, "validation": None}
    info = sources.describe(tmp_path)
    assert info.preferences == "derived from helpfulness"
    assert info.name == f"folder-{pairs.content_hash(made)[:8]}"
    assert info.title == "own pairs (1 train, 1 validation)"
    assert str(tmp_path) not in repr(info)


CHOSEN = {"prompt": "Why?", "chosen": "Yes.", "rejected": "No."}


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        ({"question": "Why?"}, None, "neither response_1 nor chosen among the columns question"),
        ({"prompt": "Why?", "response_1": "No."}, "response_2", "missing"),
        ({"response_1": "No.", "response_2": "Yes."}, "prompt", "missing"),
        ({"prompt": "Why?", "response_1": "No.", "response_2": "", "preference": 1}, "response_2", "empty"),
        ({"prompt": "Why?", "chosen": "Yes."}, "rejected", "missing"),
        ({"chosen": "Yes.", "rejected": "No."}, "prompt", "not a list of messages"),
        (CHOSEN | {"chosen": []}, "chosen", "neither a text nor messages"),
        (CHOSEN | {"chosen": [user("Yes.")]}, "chosen", "not the assistant's"),
        (CHOSEN | {"chosen": [assistant(" ")]}, "chosen", "empty"),
        (CHOSEN | {"strength": 0}, "strength", "not a strength"),
        (CHOSEN | {"strength": 4}, "strength", "outside"),
        (CHOSEN | {"split": "dev"}, "split", "'dev' is not a split"),
        ({"chosen": [user("A"), assistant("B")], "rejected": [user("a"), assistant("C")]}, "rejected", "not begin"),
        ({"prompt": "Why", "chosen": [user("A"), assistant("B")], "rejected": [user("A"), assistant("C")]}, "prompt",
         "not what chosen begins with"),
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
    with pytest.raises(DataError, match="^helpsteer9: neither a known source nor a folder. Use simulated, hub, or"):
        sources.load("helpsteer9")


def test_a_source_is_described_by_what_it_holds(official: Path) -> None:
    info = sources.describe(official)
    assert (info.name, info.preferences) == ("helpsteer2", "annotated")
    assert info.title == "HelpSteer2 (3 train, 1 validation)"
    assert info.content_hash == pairs.content_hash(helpsteer2.load(official))
