"""Names by content: of texts, and of the code of whole rooms."""

import shutil
from pathlib import Path

import pytest

from rmlib.records import hashing
from rmlib.records.hashing import PACKAGE, hash_of_code, text_key


def test_the_key_tells_prompt_from_response_and_order() -> None:
    prompt, other = ([{"role": "user", "content": text}] for text in ("a", "b"))
    keys = {text_key(prompt, "b"), text_key(other, "a"), text_key(prompt, "a", "b"), text_key(prompt, "b", "a")}
    assert len(keys) == 4


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of a room with a room inside, and of a module beside the rooms."""
    shutil.copytree(PACKAGE / "models", tmp_path / "models", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PACKAGE / "combining.py", tmp_path)
    return tmp_path


def changed(package: Path, *rooms: str) -> str:
    """The hash anew: a process reads its code once, since its code does not change either."""
    hashing.hash_of_code.cache_clear()
    return hash_of_code(*rooms, package=package)


def test_a_change_in_any_module_of_a_room_gives_its_code_another_hash(package: Path) -> None:
    before, modules = changed(package, "models"), sorted((package / "models").rglob("*.py"))
    assert before == hash_of_code("models") and {path.parent.name for path in modules} >= {"models", "attention"}
    for module in modules:
        source = module.read_text()
        module.write_text(source + "\n")
        assert changed(package, "models") != before, module.name
        module.write_text(source)
    assert changed(package, "models") == before
    modules[-1].rename(modules[-1].with_stem("renamed"))
    assert changed(package, "models") != before


def test_a_change_elsewhere_gives_the_same_hash_and_the_order_of_rooms_does_not_count(package: Path) -> None:
    before = changed(package, "models")
    both = changed(package, "models", "combining")
    (package / "combining.py").write_text("")
    assert changed(package, "models") == before
    assert changed(package, "models", "combining") != both
    assert hash_of_code("combining", "models") == hash_of_code("models", "combining")


def test_code_that_is_not_there_has_no_hash(package: Path) -> None:
    with pytest.raises(FileNotFoundError, match="unknown"):
        hash_of_code("unknown", package=package)
