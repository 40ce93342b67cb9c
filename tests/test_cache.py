"""Tables kept on disk: what is found again, what is not, and what happens to broken or unwritable entries."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from released import DISAGREEMENTS, write_release

from rmlib.pairs import DERIVED, FEATURES, content_hash, make_pairs
from rmlib.records import files
from rmlib.records.errors import DataError, Place
from rmlib.sources import cache, helpsteer2

logger = logging.getLogger("rmlib.sources.anything")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "votes.txt").write_text("three votes")
    return tmp_path / "votes.txt"


class Maker:
    """Makes a table, warns, and counts how often."""

    def __init__(self, *warnings: str) -> None:
        self.calls, self.warnings = 0, warnings

    def __call__(self) -> Dataset:
        self.calls += 1
        for text in self.warnings:
            logger.warning("%s", text)
        return table()


def table(prompts: int = 3) -> Dataset:
    rows = [
        {
            "split": "train" if n else "validation",
            "prompt": [{"role": "user", "content": f"Größe {n}? \u2028"}],
            "response_1": "Ja.",
            "response_2": "Nein.",
            "preference": n - 1 if n else None,
            "annotations": [{"preference": -100}, {"ratings_2": {"coherence": 2.5}}] if n else None,
        }
        for n in range(prompts)
    ]
    return make_pairs(rows, origin="test", preferences=DERIVED)


def entries(runs: Path) -> list[Path]:
    return list((runs / "sources").iterdir()) if (runs / "sources").is_dir() else []


def test_a_table_is_made_once_and_found_again_as_it_was(file: Path, runs: Path) -> None:
    make = Maker()
    first, second = (cache.cached("own", [file], make, strict=True) for _ in range(2))
    assert make.calls == 1
    assert second.to_list() == first.to_list() == table().to_list()
    assert second.info.description == DERIVED
    assert second.features == FEATURES and second.data.schema == first.data.schema
    assert content_hash(second) == content_hash(first)
    (entry,) = entries(runs)
    assert sorted(path.name for path in entry.iterdir()) == ["about.json", "pairs.arrow"]


def test_what_a_table_depends_on_is_what_finds_it(file: Path, tmp_path: Path) -> None:
    make = Maker()

    def load(name: str = "own", path: Path = file, **options: Any) -> int:
        cache.cached(name, [path], make, **options)
        return make.calls

    assert [load(), load(), load(strict=True), load(strict=False), load("other"), load()] == [1, 1, 2, 3, 4, 4]
    copied = shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("runs"))
    assert load(path=copied / file.name) == 4  # the same name and content elsewhere
    renamed = (copied / file.name).rename(copied / "renamed.txt")  # warnings and errors name the file
    assert load(path=renamed) == 5
    file.write_text("four votes")
    assert load() == 6
    file.write_text("three votes")
    assert load() == 6


def test_a_change_of_the_code_that_makes_tables_makes_them_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    cache.cached("own", [file], make)
    monkeypatch.setattr(cache, "hash_of_code", lambda *rooms: " and ".join(rooms))
    cache.cached("own", [file], make)
    cache.cached("own", [file], make)
    assert make.calls == 2


def test_warnings_are_given_again_by_every_later_load(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    make = Maker("5 % left out", "3 pairs %s")
    for _ in range(3):
        caplog.clear()
        cache.cached("own", [file], make)
        assert [(r.name, r.levelno, r.getMessage()) for r in caplog.records] == [
            (logger.name, logging.WARNING, "5 % left out"),
            (logger.name, logging.WARNING, "3 pairs %s"),
        ]
    assert make.calls == 1


def test_warnings_that_were_switched_off_are_not_lost_for_later_loads(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker("left out")
    with caplog.at_level(logging.ERROR, logger="rmlib"):
        cache.cached("own", [file], make)
    cache.cached("own", [file], make)
    assert (make.calls, caplog.messages) == (2, ["left out"])


def test_a_loader_that_fails_leaves_nothing_behind(file: Path, runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Dataset:
        logger.warning("something odd")
        raise DataError(Place("votes.txt"), "broken", "Mend it")

    handlers = list(logging.getLogger("rmlib").handlers)
    with pytest.raises(DataError, match="broken"):
        cache.cached("own", [file], fail)
    assert caplog.messages == ["something odd"]
    assert logging.getLogger("rmlib").handlers == handlers
    assert entries(runs) == []


def test_a_file_that_changes_while_it_is_read_is_not_kept(file: Path, runs: Path) -> None:
    def make() -> Dataset:
        file.write_text("still coming in")
        return table()

    cache.cached("own", [file], make)
    assert entries(runs) == []


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(file: Path) -> None:
    file.unlink()
    with pytest.raises(DataError, match=r"^votes.txt: cannot be read \(No such file"):
        cache.cached("own", [file], Maker())


def test_a_selection_is_kept_as_it_was_selected(file: Path) -> None:
    def make() -> Dataset:
        return table(5).select([3, 1])

    first, second = (cache.cached("own", [file], make) for _ in range(2))
    assert second.to_list() == first.to_list() == make().to_list()


def check_rebuilt(file: Path, make: Maker, caplog: pytest.LogCaptureFixture) -> None:
    """The next load makes the table again and says so; the one after finds it."""
    caplog.clear()
    calls = make.calls
    assert cache.cached("own", [file], make).to_list() == table().to_list()
    assert make.calls == calls + 1
    assert "broken cache entry discarded" in caplog.text
    caplog.clear()
    assert cache.cached("own", [file], make).to_list() == table().to_list()
    assert make.calls == calls + 1 and not caplog.messages


@pytest.mark.parametrize("missing", ["about.json", "pairs.arrow"])
def test_an_entry_that_lacks_a_part_is_made_again(
    file: Path, runs: Path, caplog: pytest.LogCaptureFixture, missing: str
) -> None:
    make = Maker()
    cache.cached("own", [file], make)
    (entries(runs)[0] / missing).unlink()
    check_rebuilt(file, make, caplog)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_entry_is_made_again(
    file: Path, runs: Path, caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    make = Maker()
    cache.cached("own", [file], make)
    (entry,) = entries(runs)
    path = entry / data.draw(st.sampled_from(["about.json", "pairs.arrow"]))
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    other = bytes([whole[position] ^ data.draw(st.integers(1, 255))])
    path.write_bytes(whole[:position] + (other + whole[position + 1 :] if data.draw(st.booleans()) else b""))
    check_rebuilt(file, make, caplog)


def test_where_nothing_can_be_written_loading_works_and_says_so(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(file / "runs"))  # below a file nobody can write, not even root
    make = Maker()
    for calls in (1, 2):
        caplog.clear()
        assert cache.cached("own", [file], make).to_list() == table().to_list()
        assert make.calls == calls
        (message,) = caplog.messages
        assert message.startswith("the table is not kept, so the next load takes as long (")


def test_a_full_disk_leaves_no_half_entry(
    file: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path) -> str:
        if path.name == "pairs.arrow":
            raise OSError(28, "No space left on device")
        return files.sha256(path)

    monkeypatch.setattr(cache, "sha256", full)
    cache.cached("own", [file], Maker())
    assert "No space left on device" in caplog.text
    assert entries(runs) == []


def test_where_another_process_is_first_its_entry_stays(
    file: Path, runs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inner, outer = Maker(), Maker()

    def slower() -> Dataset:
        cache.cached("own", [file], inner)
        return outer()

    cache.cached("own", [file], slower)
    assert (inner.calls, outer.calls) == (1, 1)
    assert len(entries(runs)) == 1 and not caplog.messages
    assert cache.cached("own", [file], inner).to_list() == table().to_list()
    assert inner.calls == 1


def test_helpsteer2_is_joined_once_and_then_found_with_its_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_release(tmp_path / "release", disagreements=[*DISAGREEMENTS, DISAGREEMENTS[0]])
    (folder / "preference" / "preference.jsonl.gz").unlink()
    first = helpsteer2.load(folder)
    (warning,) = caplog.messages
    monkeypatch.setattr(helpsteer2.table, "make_pairs", None)  # whoever made it again would fail
    second = helpsteer2.load(folder)
    assert second.to_list() == first.to_list()
    assert second.info.description == first.info.description == "derived from helpfulness"
    assert caplog.messages == [warning, warning]


def test_without_configured_logging_the_first_load_shows_its_warnings_too(file: Path, runs: Path) -> None:
    code = (
        "import logging, sys; from pathlib import Path; from rmlib.pairs import make_pairs\n"
        "from rmlib.sources.cache import cached\n"
        "def make():\n"
        "    logging.getLogger('rmlib.sources.anything').warning('two rows left out')\n"
        "    row = {'split': 'train', 'prompt': [{'role': 'user', 'content': 'q'}]}\n"
        "    return make_pairs([row | {'response_1': 'a', 'response_2': 'b'}], origin='test')\n"
        "cached('anything', [Path(sys.argv[1])], make)\n"
    )
    for _ in range(2):
        told = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
        assert told.stderr.count("two rows left out") == 1
