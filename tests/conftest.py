"""What every test shares: real data where it can be had, one thread, no network."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch is imported: waiting threads that spin starve whatever shares the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("RMLIB_RUNS", tempfile.mkdtemp(prefix="rmlib-runs-"))  # tables that are kept once read

import hypothesis
import jaxtyping
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
# Shapes that annotations promise are checked at every call, in the modules that promise any; before they are imported.
SHAPED = [path for path in (REPOSITORY / "rmlib").rglob("*.py") if "jaxtyping" in path.read_text()]
NAMES = [".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__") for path in SHAPED]
jaxtyping.install_import_hook(NAMES, "checked_shapes.checker")

# The same examples every time, however slow the machine: a failure here is a failure everywhere.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """A function from the name of a real data set to its folder; a test whose data are absent is skipped."""
    root = Path(os.environ.get("RMLIB_SHARED_DATA") or REPOSITORY.parent / "shared" / "data")

    def folder(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"no real data '{name}': set RMLIB_SHARED_DATA to the folder that holds it")
        return root / name

    return folder


@pytest.fixture
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this test alone: none of an earlier one is found again."""
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    """A tiny random decoder with its tokenizer, as the name of a backbone."""
    import tiny  # torch, which not every test needs

    return tiny.save_backbone(tmp_path / "backbone")


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """What a command sets up for its messages ends with the test that runs it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Sums in one order whatever the machine; torch is left alone by tests that do not import it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """The library as its users have it, for tests of what it says itself of shapes that do not fit."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
