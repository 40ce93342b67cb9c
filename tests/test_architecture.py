"""The house keeps its order: rooms in layers, light doors, and two tours of the code that a newcomer can read."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from importlinter.api import read_configuration
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tools import architecture

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = sorted(path for path in (ROOT / "rmlib").iterdir() if (path / "__init__.py").is_file())


def test_every_contract_on_imports_is_kept() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


def test_no_contract_makes_an_exception() -> None:
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    assert len(contracts) == 3
    assert [contract for contract in contracts if contract.keys() & {"ignore_imports", "exhaustive_ignores"}] == []


def test_the_library_is_thin() -> None:
    found = architecture.counts()
    assert found["lines"] <= 21_500 and found["entries"] <= 14


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_says_what_it_is_for_and_defines_nothing_in_its_door(room: Path) -> None:
    tree = ast.parse((room / "__init__.py").read_text())
    words = ast.get_docstring(tree) or ""
    assert len(words.split()) >= 12, "a sentence that says what the room is for, what comes in and what goes out"
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in (ROOT / "rmlib").rglob("*.py") if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("rmlib.figures", ("torch", "transformers")),
        ("rmlib.experiments.arms", ("torch", "transformers")),
        ("rmlib.benchmarks", ("torch", "transformers")),
        ("rmlib.records", ("torch", "transformers", "datasets")),
    ],
)
def test_what_reads_records_does_not_wait_for_torch(module: str, heavy: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


# --- the two tours ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tours() -> dict[str, list[str]]:
    """What really runs, watched in a process of its own: one in which nothing is imported or kept yet."""
    program = "import json; from tools import architecture; print(json.dumps(architecture.tours()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return ast.literal_eval(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("tour", architecture.MOST_MODULES)
def test_a_tour_lists_every_module_that_runs_and_is_short_enough_to_read(
    tour: str, tours: dict[str, list[str]]
) -> None:
    assert architecture.listed(PAGE, tour) == tours[tour]
    assert len(tours[tour]) <= architecture.MOST_MODULES[tour]


def test_the_page_says_of_each_module_what_the_module_says(tours: dict[str, list[str]]) -> None:
    assert architecture.renew(PAGE, tours) == PAGE, "renew it with: python -m tools.architecture write"


@pytest.mark.parametrize("tour", architecture.MOST_MODULES)
def test_whoever_reads_a_tour_has_met_what_imports_the_next_module(tour: str) -> None:
    """Each module but the first is imported by one that stands in the tour, or opens it."""
    graph = grimp.build_graph("rmlib", cache_dir=None)
    listed = {f"rmlib.{module}" for module in architecture.listed(PAGE, tour)}
    opens = {"rmlib.training.loop", "rmlib.training.initial_model", "rmlib.benchmarks"}
    unmet = [
        module
        for module in listed - opens
        if not graph.find_modules_that_directly_import(module) & (listed | opens)
    ]
    assert unmet == []


def test_the_page_names_every_room() -> None:
    named = set(re.findall(r"`(\w+)(?:/|\.py)`", PAGE))
    assert {room.name for room in ROOMS} | {"losses", "combining"} <= named
