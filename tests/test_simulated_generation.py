"""Rows and files of the simulated source: the same bytes each time, in any number, in constant memory."""

import gzip
import hashlib
import itertools
import json
import logging
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from rmlib.pairs import DataError, make_pairs, pair_id
from rmlib.records import paths
from rmlib.records.hashing import prompt_key
from rmlib.sources import simulated
from rmlib.sources.simulated import annotators, embedded, generation
from rmlib.sources.simulated.__main__ import main
from rmlib.sources.simulated.truth import examine
from rmlib.statistics import wilson_interval

FOLDER = paths.data_dir() / "embedded"


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    return simulated.load()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(simulated.generate(1_500, seed=7))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder as `write` makes it, with few pairs."""
    embedded.write(tmp_path, n_pairs=60)
    return tmp_path


# --- the same each time -----------------------------------------------------------------------------------------------


def test_a_seed_always_gives_the_same_rows_and_another_seed_others() -> None:
    first, again, other = (list(simulated.generate(50, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("n_pairs", [20, generation.BLOCK, generation.BLOCK + 1])
def test_the_first_rows_do_not_depend_on_how_many_are_asked_for(n_pairs: int) -> None:
    assert list(itertools.islice(simulated.generate(10**9, seed=0), n_pairs)) == list(
        simulated.generate(n_pairs, seed=0)
    )


def test_as_many_rows_come_as_are_asked_for() -> None:
    for n_pairs in (0, 1, generation.BLOCK, generation.BLOCK + 3):
        assert sum(1 for _ in simulated.generate(n_pairs, seed=1)) == n_pairs


def test_the_hash_seed_of_the_process_changes_nothing() -> None:
    code = (
        "import hashlib, json; from rmlib.sources.simulated import generate, benchmark_items;"
        "rows = [*generate(40, seed=1), *benchmark_items(2)];"
        "print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())"
    )
    rows = [*simulated.generate(40, seed=1), *simulated.benchmark_items(2)]
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert out.stdout.strip() == hashlib.sha256(json.dumps(rows).encode()).hexdigest()


# --- rows -------------------------------------------------------------------------------------------------------------


def test_every_row_has_the_truth_of_its_texts(rows: list[dict[str, Any]]) -> None:
    for row, texts in zip(rows[:300], generation.draw_texts(7), strict=False):
        assert (row["prompt"], row["response_1"], row["response_2"]) == (texts.task.prompt, *texts.responses)
        findings = [examine(texts.task, response) for response in texts.responses]
        assert [row["truth_1"], row["truth_2"]] == [finding.truth for finding in findings]


def test_the_true_preference_is_the_difference_in_utility(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        gap = sum(w * (row["truth_2"][name] - row["truth_1"][name]) for name, w in annotators.UTILITY.items())
        assert row["truth_preference"] == pytest.approx(gap, abs=1e-4)


def test_rows_make_a_table_whose_annotations_are_complete(rows: list[dict[str, Any]]) -> None:
    table = make_pairs(rows, origin="generated")
    assert len(table) == len({pair_id(row["prompt"], row["response_1"], row["response_2"]) for row in rows})
    for annotations in table["annotations"]:
        assert len({annotation["annotator"] for annotation in annotations}) == len(annotations) in (3, 4, 5)
        assert all(value is not None for annotation in annotations for value in annotation.values())
        assert all(annotation["preference"] in (-100, -3, -2, -1, 1, 2, 3) for annotation in annotations)


def test_further_annotators_come_only_where_the_first_three_disagree(rows: list[dict[str, Any]]) -> None:
    numbers = Counter[int]()
    for row in rows:
        first = row["annotations"][:3]
        spans = [np.ptp([a[side]["helpfulness"] for a in first]) for side in ("ratings_1", "ratings_2")]
        assert len(row["annotations"]) == 3 or max(spans) > 2
        numbers[len(row["annotations"])] += 1
    assert numbers[3] > numbers[4] + numbers[5] and min(numbers[4], numbers[5]) > 20


def test_invalid_votes_occur_and_are_rare(rows: list[dict[str, Any]]) -> None:
    votes = [annotation["preference"] for row in rows for annotation in row["annotations"]]
    assert 0 < votes.count(-100) < 0.02 * len(votes)


def test_other_parameters_change_annotations_and_no_text() -> None:
    silent = annotators.Parameters.load()
    silent = annotators.Parameters.of(vars(silent) | {"noise": [0.0] * 5, "misread": 0.0, "contested": 0.0})
    for one, other in zip(simulated.generate(80, 0), simulated.generate(80, 0, parameters=silent), strict=True):
        assert all(one[column] == other[column] for column in ("prompt", "response_1", "response_2", "truth_1"))
        assert len(other["annotations"]) == 3


# --- any number of pairs ----------------------------------------------------------------------------------------------


def test_repeated_pairs_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    row, other = simulated.generate(2, seed=0)
    with caplog.at_level(logging.INFO):
        assert list(embedded.distinct([row, row, other, row])) == [row, other]
    assert "left out 2 generated pairs" in caplog.text


def test_a_name_is_found_again_and_others_are_not_mistaken_for_it() -> None:
    """20,000 names: none that is new is taken for an old one (expected: 20,000 times less than 1e-12)."""
    seen = embedded.Seen()
    names = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(20_000)]
    assert not any(seen.add(name) for name in names)
    assert all(seen.add(name) for name in names)


def test_the_rate_of_mistakes_is_that_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bloom's (1 - exp(-k n / m))^k, in a filter so small that it errs."""
    monkeypatch.setattr(embedded.Seen, "N_BITS", 2**14)
    seen = embedded.Seen()
    names = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(6_000)]
    for name in names[:1_500]:
        seen.add(name)
    bits = bytes(seen._bits)
    mistakes = 0
    for name in names[1_500:]:
        mistakes += seen.add(name)
        seen._bits[:] = bits
    k, m = embedded.Seen.N_PLACES, 2**14
    expected = (1 - np.exp(-k * 1_500 / m)) ** k
    assert (
        wilson_interval(mistakes, 4_500, level=0.999).low
        < expected
        < wilson_interval(mistakes, 4_500, level=0.999).high
    )


def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path: Path) -> None:
    peaks = []
    embedded.stream(tmp_path, 300, seed=0)  # caches are filled
    for n_pairs in (600, 2_400):
        tracemalloc.start()
        embedded.stream(tmp_path, n_pairs, seed=0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]


def test_the_command_streams_what_the_generator_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "--folder", str(tmp_path / "new"), "--pairs", "30", "--seed", "5"]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pairs.jsonl.gz"]
    with gzip.open(tmp_path / "new" / "pairs.jsonl.gz") as file:
        assert [json.loads(line) for line in file] == list(simulated.generate(30, seed=5))
    assert "pairs.jsonl.gz" in capsys.readouterr().out


@pytest.mark.parametrize("count", ["0", "-5", "many", "1e6"])
def test_a_number_of_pairs_that_is_none_is_refused(tmp_path: Path, count: str) -> None:
    with pytest.raises(SystemExit):
        main(["stream", "--folder", str(tmp_path), f"--pairs={count}", "--seed", "5"])


# --- the files in data/embedded ---------------------------------------------------------------------------------------


def test_the_embedded_pairs_are_what_the_generator_gives() -> None:
    with gzip.open(FOLDER / "pairs.jsonl.gz") as file:
        written = [json.loads(line) for line in itertools.islice(file, 300)]
    assert written == list(itertools.islice(simulated.generate(10**6, embedded.SEED), 300))


def test_the_embedded_benchmark_is_what_the_generator_gives() -> None:
    with gzip.open(FOLDER / "rewardbench.jsonl.gz") as file:
        assert [json.loads(line) for line in file] == list(simulated.benchmark_items())


def test_every_embedded_file_has_its_recorded_hash() -> None:
    assert embedded.sums(FOLDER) == embedded.recorded(FOLDER)
    assert (FOLDER / "pairs.jsonl.gz").stat().st_size < 2_500_000


def test_writing_twice_gives_the_same_bytes_and_check_accepts_them(small: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    embedded.write(again, n_pairs=60)
    for file in (path for path in again.rglob("*") if path.is_file()):
        assert file.read_bytes() == (small / file.relative_to(again)).read_bytes()
    embedded.check(again, n_pairs=60)


def test_the_recorded_hash_is_that_of_the_uncompressed_content(small: Path) -> None:
    content = gzip.decompress((small / "pairs.jsonl.gz").read_bytes())
    (small / "pairs.jsonl.gz").write_bytes(gzip.compress(content, 1))  # another compressor, the same content
    assert embedded.recorded(small)["pairs.jsonl.gz"] == hashlib.sha256(content).hexdigest()
    assert len(simulated.load(small)) == content.count(b"\n")


def test_altered_pairs_are_refused_with_the_command_that_restores_them(small: Path) -> None:
    with gzip.open(small / "pairs.jsonl.gz", "ab") as file:
        file.write(b" \n")
    with pytest.raises(DataError, match=r"^pairs.jsonl.gz: .*sha256.*SHA256SUMS.*rmlib.sources.simulated write"):
        simulated.load(small)


@pytest.mark.parametrize("name", ["pairs.jsonl.gz", "SHA256SUMS"])
def test_an_absent_file_is_named_with_the_command_that_writes_it(small: Path, name: str) -> None:
    (small / name).unlink()
    with pytest.raises(DataError, match=f"^{name}: there is no such file.*rmlib.sources.simulated write"):
        simulated.load(small)


@pytest.mark.parametrize("name", ["backbone/config.json", "rewardbench.jsonl.gz"])
def test_check_names_a_file_that_was_altered_or_removed(small: Path, name: str) -> None:
    with (small / name).open("ab") as file:
        file.write(gzip.compress(b"\n") if name.endswith("gz") else b"\n")
    with pytest.raises(DataError, match=f"^{name}: .*SHA256SUMS says"):
        embedded.check(small, n_pairs=60)
    (small / name).unlink()
    with pytest.raises(DataError, match=f"^{name}: .*there is no such file"):
        embedded.check(small, n_pairs=60)


def test_check_notices_files_that_the_generator_no_longer_makes(small: Path) -> None:
    with pytest.raises(DataError, match="the generator says"):
        embedded.check(small, n_pairs=61)


# --- the splits -------------------------------------------------------------------------------------------------------


def test_the_splits_are_large_enough_and_share_no_prompt(pairs: Dataset) -> None:
    prompts = [prompt_key(prompt) for prompt in pairs["prompt"]]
    by_split = {
        split: {p for p, s in zip(prompts, pairs["split"], strict=True) if s == split}
        for split in ("train", "validation")
    }
    assert not by_split["train"] & by_split["validation"]
    counts = Counter(pairs["split"])
    assert counts["train"] >= 2_000 and counts["validation"] >= 1_000
    decided = sum(bool(p) for p, s in zip(pairs["preference"], pairs["split"], strict=True) if s == "validation")
    assert decided >= 600


def test_no_pair_occurs_twice(pairs: Dataset) -> None:
    with gzip.open(FOLDER / "pairs.jsonl.gz") as file:
        assert len(set(pairs["pair_id"])) == len(pairs) == sum(1 for _ in file)


def test_about_29_percent_of_the_prompts_have_several_turns(pairs: Dataset) -> None:
    share = wilson_interval(sum(len(prompt) > 1 for prompt in pairs["prompt"]), len(pairs))
    assert share.low > 0.26 and share.high < 0.31
    assert {tuple(m["role"] for m in prompt) for prompt in pairs["prompt"]} == {
        ("user",),
        ("user", "assistant", "user"),
    }


def test_texts_vary(rows: list[dict[str, Any]]) -> None:
    responses = {row[side] for row in rows for side in ("response_1", "response_2")}
    assert len({prompt_key(row["prompt"]) for row in rows}) > 0.95 * len(rows)
    assert len(responses) > 0.8 * 2 * len(rows)
