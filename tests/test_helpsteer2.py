"""HelpSteer2 from the files as released: what is read and joined, what is warned of, and what is refused."""

import gzip
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from released import (
    DISAGREEMENTS,
    NAMES,
    PREFERENCES,
    TRAIN,
    disagreed,
    preferred,
    rated,
    write,
    write_release,
)

from rmlib import pairs, sources
from rmlib.pairs import ATTRIBUTES, DataError
from rmlib.sources import helpsteer2
from rmlib.sources.helpsteer2 import release


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
    voted = [annotation for annotation in sung["annotations"] if annotation["preference"] is not None]
    assert [tuple(annotation[column] for column in columns) for annotation in voted] == [
        (-100, None, None, "Neither sings."),
        (-2, "@Response 1 wins.", "Longer.", "Longer. @Response 1 wins."),
        (-1, "@Response 1 is slightly better.", "", "@Response 1 is slightly better."),
        (-2, "@Response 1 is better.", "It sings more.", "@Response 1 is better. It sings more."),
    ]


def test_the_ratings_of_single_annotators_follow_the_responses_that_they_rate(official: Path) -> None:
    sung = helpsteer2.load(official)[1]  # its responses stand in the other order in the preference file
    single = [annotation for annotation in sung["annotations"] if annotation["preference"] is None]
    helpfulness = [[(one[side] or {}).get("helpfulness") for side in ("ratings_1", "ratings_2")] for one in single]
    assert helpfulness == [[2, None], [3, None], [1, None], [None, 1], [None, 1], [None, 0], [None, 2], [None, 1]]
    assert single[1]["ratings_1"] == dict(zip(ATTRIBUTES, [3, 3, 4, 2, 0], strict=True))
    assert sung["annotations"][-len(single) :] == single
    others = {name: value for name, value in single[0].items() if name != "ratings_1"}
    assert set(others.values()) == {None}


def test_without_the_file_of_disagreements_annotations_are_those_of_the_preference_file(official: Path) -> None:
    (official / "disagreements" / "disagreements.jsonl.gz").unlink()
    made = helpsteer2.load(official)
    assert [len(annotations or ()) for annotations in made["annotations"]] == [3, 4, 0, 3]
    (official / "preference" / "preference.jsonl.gz").unlink()
    assert helpsteer2.load(official)["annotations"][:] == [None] * 4


def test_disagreements_join_derived_preferences_too(official: Path) -> None:
    (official / "preference" / "preference.jsonl.gz").unlink()
    made = helpsteer2.load(official)
    assert [len(annotations) for annotations in made["annotations"]] == [2 + 3, 5 + 3, 3 + 3, 3 + 3]
    assert made.info.description == "derived from helpfulness"


def test_disagreements_that_cannot_be_joined_are_counted_and_warned_of(
    official: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = pairs.content_hash(helpsteer2.load(official)), helpsteer2.load(official).to_list()
    other_text, other_prompt = DISAGREEMENTS[0] | {"response": "La la la"}, DISAGREEMENTS[0] | {"prompt": "Sing."}
    odd = DISAGREEMENTS[1] | {"correctness": [4]}
    nobody = DISAGREEMENTS[-1] | {attribute: [] for attribute in ATTRIBUTES}
    write_release(official, disagreements=[*DISAGREEMENTS, other_text, other_prompt, DISAGREEMENTS[1]])
    made = helpsteer2.load(official)
    assert (pairs.content_hash(made), made.to_list()) == expected
    assert set(caplog.messages) == {
        "disagreements.jsonl.gz: left out, because no rated response has this prompt and text (2 rows)",
        "disagreements.jsonl.gz: left out, because an earlier row has the annotations of this response (1 rows)",
    }
    caplog.clear()
    write_release(official, disagreements=[DISAGREEMENTS[0], odd, *DISAGREEMENTS[3:-1], nobody])
    made = helpsteer2.load(official)
    assert set(caplog.messages) == {
        "disagreements.jsonl.gz: lists of different lengths, the shorter taken to lack their last annotators (1 rows)",
        "disagreements.jsonl.gz: no annotation in any list (1 rows)",
        "disagreements.jsonl.gz: no annotations of a rated response (1 rows)",
    }
    assert [one["ratings_1"]["correctness"] for one in made[0]["annotations"][3:5]] == [4, None]
    assert len(made[3]["annotations"]) == 3 + 3  # three preferences, three ratings of one response, none of the other


def test_the_same_text_as_both_responses_takes_two_rows_of_disagreements(official: Path, caplog: Any) -> None:
    twice = rated("Say it.", "It.", 1, 1, 1, 1, 1)
    row = disagreed(twice, (1, 1, 1, 1, 1), (2, 2, 2, 2, 2))
    write_release(official, train=[*TRAIN, twice, twice], disagreements=[*DISAGREEMENTS, row, row])
    assert len(helpsteer2.load(official)) == 4
    (message,) = caplog.messages
    assert "the same text as both responses" in message and "(train.jsonl.gz, row 7)" in message


def test_annotations_that_the_layout_promises_but_a_row_lacks_are_counted_and_warned_of(
    official: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = {k: v for k, v in PREFERENCES[0].items() if k not in ("three_most_similar_preferences",)}
    bare["all_preferences_unprocessed"] = [{"strength": 1}] * 3
    stranger = [{"strength": 3, "statement": "Who?", "elaboration": ""}] + [
        {"strength": -3, "statement": "Never written.", "elaboration": ""}
    ] * 2
    other = PREFERENCES[2] | {"three_most_similar_preferences": stranger}
    write_release(official, preference=[bare, PREFERENCES[1], other])
    made = helpsteer2.load(official)
    assert set(caplog.messages) == {
        "preference.jsonl.gz: 0 entries in three_most_similar_preferences, outside 3 to 3 (1 rows)",
        "preference.jsonl.gz: an entry of all_preferences_unprocessed without justification (3 rows)",
        "preference.jsonl.gz: a strength of three_most_similar_preferences that is not among "
        "all_preferences_unprocessed, added as an annotation (1 rows)",
        "preference.jsonl.gz: a statement of three_most_similar_preferences that no text of "
        "all_preferences_unprocessed quotes, given to one of its strength (3 rows)",
    }
    assert [one["preference"] for one in made[0]["annotations"][:4]] == [-3, -3, -3, 3]


def test_fields_outside_the_layout_are_left_out_and_counted(official: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = helpsteer2.load(official).to_list()
    extra = [[row | {"id": n, "half \ud83d": [[{}]]} for n, row in enumerate(rows)] for rows in (TRAIN, DISAGREEMENTS)]
    entries = [entry | {"worker": 7} for entry in PREFERENCES[1]["all_preferences_unprocessed"]]
    changed = [PREFERENCES[0], PREFERENCES[1] | {"all_preferences_unprocessed": entries}, PREFERENCES[2] | {"id": 1}]
    write_release(official, train=extra[0], disagreements=extra[1], preference=changed)
    assert helpsteer2.load(official).to_list() == expected
    assert set(caplog.messages) == {
        "train.jsonl.gz: field 'id' not used (6 rows)",
        "train.jsonl.gz: field 'half \\ud83d' not used (6 rows)",
        "disagreements.jsonl.gz: field 'id' not used (8 rows)",
        "disagreements.jsonl.gz: field 'half \\ud83d' not used (8 rows)",
        "preference.jsonl.gz: all_preferences_unprocessed: field 'worker' not used (4 rows)",
        "preference.jsonl.gz: field 'id' not used (1 rows)",
    }


def test_many_kinds_of_unused_fields_are_summed_up(official: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_release(official, train=[row | {f"{n}{m}": 0 for m in range(3)} for n, row in enumerate(TRAIN)])
    helpsteer2.load(official)
    assert len(caplog.messages) == 11
    assert caplog.messages[-1] == "train.jsonl.gz: 8 more kinds of such notes (18 in all)"


def test_without_a_preference_file_preferences_are_derived_and_the_table_says_so(official: Path) -> None:
    (official / "preference" / "preference.jsonl.gz").unlink()
    made = helpsteer2.load(official)
    assert made["preference"][:] == [-3, 1, 0, -1]  # 0 - 4 is clipped
    assert sources.describe(official).preferences == "derived from helpfulness"


def test_plain_files_are_read_where_there_is_no_compressed_one(official: Path, tmp_path: Path) -> None:
    expected = pairs.content_hash(helpsteer2.load(official))
    for path in list(official.rglob("*.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert pairs.content_hash(helpsteer2.load(official)) == expected
    for part in ("preference", "disagreements"):
        (official / part / f"{part}.jsonl").rename(official / f"{part}.jsonl")
    assert pairs.content_hash(helpsteer2.load(official)) == expected


def test_preferences_that_fit_no_pair_are_counted_and_warned_of(
    official: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stray = preferred(TRAIN[0], TRAIN[2], 1)
    write(official / "preference" / "preference.jsonl.gz", [*PREFERENCES, stray, PREFERENCES[2] | {"split": "train"}])
    assert helpsteer2.load(official)["preference"][:] == [-3, -2, None, 0]
    left_out = "left out, because it fits no rated pair that still lacks a preference"
    assert caplog.messages == [f"preference.jsonl.gz: {left_out} (2 rows)"]
    caplog.clear()
    write(official / "preference" / "preference.jsonl.gz", [PREFERENCES[2] | {"split": "val"}])
    assert helpsteer2.load(official)["preference"][:] == [None] * 4
    left_out = "left out, because it names another split than the ratings"
    assert caplog.messages == [f"preference.jsonl.gz: {left_out} (1 rows)"]


def test_a_pair_of_one_text_is_left_out_and_named(official: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(official / "train.jsonl.gz", [*TRAIN, TRAIN[0], TRAIN[0], *TRAIN[:2]])
    made = helpsteer2.load(official)
    assert len(made) == 4
    assert "left out 1 pairs that repeat an earlier pair" in caplog.text
    assert "left out 1 pairs that have the same text as both responses" in caplog.text
    assert f"{pairs.pair_id([user('Name a prime.')], 'Two.', 'Two.')} (train.jsonl.gz, row 7)" in caplog.text
    assert f"{made[0]['pair_id']} (train.jsonl.gz, row 9)" in caplog.text


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
    for part in ("train.jsonl.gz has sha256", "validation.jsonl.gz has sha256", "preference.jsonl.gz has sha256",
                 "6 rows in train.jsonl.gz, not 20,324", "2 rows in validation.jsonl.gz, not 1,038",
                 "3 rows in preference/preference.jsonl.gz, not 9,125",
                 "8 rows in disagreements/disagreements.jsonl.gz, not 23,652",
                 "2 decided pairs in train, not 6,766", "0 decided pairs in validation, not 352"):  # fmt: skip
        assert part in message
    assert "disagreements.jsonl.gz has sha256" not in message  # none is known
    assert f"not {release.FILES['preference'].sha256}" in message


def claim(monkeypatch: pytest.MonkeyPatch, official: Path) -> None:
    """Let the small files be the release, but for their numbers of decided pairs."""
    for part, name in NAMES.items():
        content = (official / name).read_bytes()
        size, digest = len(content), hashlib.sha256(content).hexdigest()
        rows = gzip.decompress(content).count(b"\n")
        known = (size, digest) if part != "disagreements" else (None, None)
        monkeypatch.setitem(release.FILES, part, release.File(name, rows, *known))
    monkeypatch.setattr(release, "DECIDED_PAIRS", {"train": 2, "validation": 0})


def test_the_release_itself_is_not_warned_of(
    official: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claim(monkeypatch, official)
    with caplog.at_level(logging.INFO, logger="rmlib.sources"):
        helpsteer2.load(official)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "HelpSteer2: no checksum is known for disagreements.jsonl.gz: only the rows were counted")
    ]


def test_a_count_that_differs_from_the_release_is_named(
    official: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claim(monkeypatch, official)
    monkeypatch.setattr(release, "DECIDED_PAIRS", {"train": 2, "validation": 1})
    write(official / NAMES["disagreements"], DISAGREEMENTS[:-1])
    helpsteer2.load(official)
    assert caplog.messages[-1] == (
        f"HelpSteer2 is not as released at {release.REVISION}: 7 rows in disagreements/disagreements.jsonl.gz, not 8; "
        "0 decided pairs in validation, not 1"
    )


def test_files_of_another_size_beside_released_ones_are_named_and_not_compared(
    official: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    claim(monkeypatch, official)
    write(official / NAMES["preference"], PREFERENCES[1:])
    with caplog.at_level(logging.INFO, logger="rmlib.sources"):
        for _ in range(2):  # the second time from the cache
            helpsteer2.load(official)
    infos = [r.message for r in caplog.records if r.levelname == "INFO"]
    assert infos[0] == (
        "HelpSteer2: not the released files, by their size: preference.jsonl.gz; 3 + 1 pairs; preferences: annotated"
    )
    assert infos[2:] == infos[:2] and "only the rows were counted" in infos[1]
    assert not any("not as released" in message for message in caplog.messages)


def test_the_reference_counts_are_those_of_the_paper() -> None:
    assert release.DECIDED_PAIRS == {"train": 6_766, "validation": 352}
    assert {part: file.rows for part, file in release.FILES.items()} == {
        "train": 20_324, "validation": 1_038, "preference": 9_125, "disagreements": 23_652,
    }  # fmt: skip
    assert release.PAIRS == {"train": 10_162, "validation": 519}


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
    (official / "disagreements" / "disagreements.jsonl.gz").unlink()
    helpsteer2.load("hub", revision="old")
    assert "not in revision old; the ratings of single annotators will be missing" in caplog.text


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
