"""The command of the simulated data: the same bytes each time, in constant memory, and the fit of the annotators."""

import gzip
import hashlib
import itertools
import json
import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rmlib.pairs import DataError
from rmlib.records import paths
from rmlib.sources import simulated
from rmlib.sources.simulated import annotators, embedded
from rmlib.sources.simulated.published import FIRST, THEN, against_targets, targets
from rmlib.statistics import wilson_interval
from tools import simulated_data
from tools.simulated_data import Sample, main

FOLDER = paths.data_dir() / "embedded"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder as `write` makes it, with few pairs."""
    simulated_data.write(tmp_path, n_pairs=60)
    return tmp_path


# --- any number of pairs ----------------------------------------------------------------------------------------------


def test_repeated_pairs_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    row, other = simulated.generate(2, seed=0)
    with caplog.at_level(logging.INFO):
        assert list(simulated_data.distinct([row, row, other, row])) == [row, other]
    assert "left out 2 generated pairs" in caplog.text


def test_a_name_is_found_again_and_others_are_not_mistaken_for_it() -> None:
    """20,000 names: none that is new is taken for an old one (expected: 20,000 times less than 1e-12)."""
    seen = simulated_data.Seen()
    names = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(20_000)]
    assert not any(seen.add(name) for name in names)
    assert all(seen.add(name) for name in names)


def test_the_rate_of_mistakes_is_that_of_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bloom's (1 - exp(-k n / m))^k, in a filter so small that it errs."""
    monkeypatch.setattr(simulated_data.Seen, "N_BITS", 2**14)
    seen = simulated_data.Seen()
    names = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(6_000)]
    for name in names[:1_500]:
        seen.add(name)
    bits = bytes(seen._bits)
    mistakes = 0
    for name in names[1_500:]:
        mistakes += seen.add(name)
        seen._bits[:] = bits
    k, m = simulated_data.Seen.N_PLACES, 2**14
    expected = (1 - np.exp(-k * 1_500 / m)) ** k
    assert (
        wilson_interval(mistakes, 4_500, level=0.999).low
        < expected
        < wilson_interval(mistakes, 4_500, level=0.999).high
    )


def test_memory_does_not_grow_with_the_number_of_pairs(tmp_path: Path) -> None:
    peaks = []
    simulated_data.stream(tmp_path, 256, seed=0)  # caches are filled
    for n_pairs in (400, 1_200):  # 800 rows, kept, would be more than the 5 % of 16 MB that the names take
        tracemalloc.start()
        simulated_data.stream(tmp_path, n_pairs, seed=0)
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
    assert simulated_data.sums(FOLDER) == embedded.recorded(FOLDER)
    assert (FOLDER / "pairs.jsonl.gz").stat().st_size < 2_500_000


def test_writing_twice_gives_the_same_bytes_and_check_accepts_them(small: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    simulated_data.write(again, n_pairs=60)
    for file in (path for path in again.rglob("*") if path.is_file()):
        assert file.read_bytes() == (small / file.relative_to(again)).read_bytes()
    simulated_data.check(again, n_pairs=60)


def test_the_recorded_hash_is_that_of_the_uncompressed_content(small: Path) -> None:
    content = gzip.decompress((small / "pairs.jsonl.gz").read_bytes())
    (small / "pairs.jsonl.gz").write_bytes(gzip.compress(content, 1))  # another compressor, the same content
    assert embedded.recorded(small)["pairs.jsonl.gz"] == hashlib.sha256(content).hexdigest()
    assert len(simulated.load(small)) == content.count(b"\n")


def test_altered_pairs_are_refused_with_the_command_that_restores_them(small: Path) -> None:
    with gzip.open(small / "pairs.jsonl.gz", "ab") as file:
        file.write(b" \n")
    with pytest.raises(DataError, match=r"^pairs.jsonl.gz: .*sha256.*SHA256SUMS.*tools.simulated_data write"):
        simulated.load(small)


@pytest.mark.parametrize("name", ["pairs.jsonl.gz", "SHA256SUMS"])
def test_an_absent_file_is_named_with_the_command_that_writes_it(small: Path, name: str) -> None:
    (small / name).unlink()
    with pytest.raises(DataError, match=f"^{name}: there is no such file.*tools.simulated_data write"):
        simulated.load(small)


@pytest.mark.parametrize("name", ["backbone/config.json", "rewardbench.jsonl.gz"])
def test_check_names_a_file_that_was_altered_or_removed(small: Path, name: str) -> None:
    with (small / name).open("ab") as file:
        file.write(gzip.compress(b"\n") if name.endswith("gz") else b"\n")
    with pytest.raises(DataError, match=f"^{name}: .*SHA256SUMS says"):
        simulated_data.check(small, n_pairs=60)
    (small / name).unlink()
    with pytest.raises(DataError, match=f"^{name}: .*there is no such file"):
        simulated_data.check(small, n_pairs=60)


def test_check_notices_files_that_the_generator_no_longer_makes(small: Path) -> None:
    with pytest.raises(DataError, match="the generator says"):
        simulated_data.check(small, n_pairs=61)


# --- calibration ------------------------------------------------------------------------------------------------------


def test_the_committed_parameters_meet_every_tolerance_of_the_first_rank() -> None:
    sample = Sample.draw(4_000, seed=11, show=False)  # other texts and other chance than those of the fit
    found = against_targets("fitted", sample.statistics(annotators.fitted())).loc[list(FIRST)]
    assert found["published"].notna().all()
    assert found[found["within tolerance"] != True].to_dict("index") == {}  # noqa: E712 (a column of objects)


def test_a_fit_lowers_the_misfit_and_is_the_same_each_time() -> None:
    small = Sample.draw(300, seed=3, show=False)
    one, more, again = (simulated_data.fit(small, max_trials=trials, show=False) for trials in (1, 3, 3))
    worse, better = (float(np.square(simulated_data.misfits(fit.table["fitted"])).sum()) for fit in (one, more))
    assert better < 0.5 * worse
    assert more.parameters == again.parameters
    found = small.statistics(more.parameters)
    assert more.table["fitted"].to_dict() == found  # what is written is what was tried, rounding included


def test_a_misfit_is_measured_in_tolerances_and_the_first_rank_counts_for_more() -> None:
    exact = dict.fromkeys(THEN, 0.0) | targets().to_dict()
    assert not simulated_data.misfits(exact).any()
    name = "kappa of preferences, processed"
    off = exact | {name: exact[name] + FIRST[name]}
    assert sorted(simulated_data.misfits(off))[-1] == pytest.approx(simulated_data.URGENCY)
    off = exact | {"annotators per pair": exact["annotators per pair"] - THEN["annotators per pair"]}
    assert simulated_data.misfits(off).sum() == pytest.approx(-1)
    assert simulated_data.misfits(exact | {name: np.nan}).max() == 100
