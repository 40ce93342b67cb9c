"""The house keeps its order: rooms in layers, light doors, and two tours of the code that a newcomer can read."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import grimp
import nbformat
import pytest
from importlinter.api import read_configuration

from tools import architecture

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = sorted(path for path in (ROOT / "rmlib").iterdir() if (path / "__init__.py").is_file())


def test_every_contract_on_imports_is_kept() -> None:
    """In a process of its own, since the linter switches off every logger that it finds."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_no_contract_makes_an_exception() -> None:
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    assert len(contracts) == 3
    assert [contract for contract in contracts if contract.keys() & {"ignore_imports", "exhaustive_ignores"}] == []


def test_the_library_is_thin() -> None:
    found = architecture.counts()
    assert found["lines"] <= 26_300 and found["entries"] <= 14


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_says_what_it_is_for_and_defines_nothing_in_its_door(room: Path) -> None:
    tree = ast.parse((room / "__init__.py").read_text())
    words = ast.get_docstring(tree) or ""
    assert len(words.split()) >= 12, "a sentence that says what the room is for, what comes in and what goes out"
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in (ROOT / "rmlib").rglob("*.py") if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_what_reads_records_does_not_wait_for_torch() -> None:
    """In one process, the lightest first, since what one module imports is there for those after it."""
    modules = ["rmlib.records", "rmlib.figures", "rmlib.experiments.arms", "rmlib.benchmarks", "rmlib.training.runs"]
    program = f"import sys, importlib\nfor name in {modules}:\n    importlib.import_module(name)\n"
    program += "    print(name, *sorted({'torch', 'transformers', 'datasets'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    first, *others = done.stdout.splitlines()
    assert first == modules[0]
    assert [line.split()[0] for line in others if not {"torch", "transformers"} & {*line.split()}] == modules[1:]


# --- the two tours ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched() -> tuple[dict[str, list[str]], set[str]]:
    """What really runs, and what is imported then, in a process of its own: nothing is imported or kept there yet."""
    program = "import sys; from tools import architecture; print((architecture.tours(), {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return ast.literal_eval(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def tours(watched: tuple[dict[str, list[str]], set[str]]) -> dict[str, list[str]]:
    return watched[0]


def test_a_training_and_a_scoring_without_adapters_do_not_wait_for_peft(
    watched: tuple[dict[str, list[str]], set[str]],
) -> None:
    assert "rmlib.training.loop" in watched[1] and not watched[1] & {"peft", "bitsandbytes"}


@pytest.mark.parametrize("tour", architecture.MOST_MODULES)
def test_a_tour_lists_every_module_that_runs_and_is_short_enough_to_read(
    tour: str, tours: dict[str, list[str]]
) -> None:
    assert architecture.listed(PAGE, tour) == tours[tour]
    assert len(tours[tour]) <= architecture.MOST_MODULES[tour]


def test_the_page_says_of_each_module_what_the_module_says(tours: dict[str, list[str]]) -> None:
    assert architecture.renew(PAGE, tours) == PAGE, "renew it with: python -m tools.architecture write"


@pytest.mark.parametrize("tour", architecture.MOST_MODULES)
def test_whoever_reads_a_tour_is_led_from_each_module_to_the_next_by_an_import(tour: str) -> None:
    """Each module but the first is imported by another of the tour, or handed on by the door of its room."""
    graph = grimp.build_graph("rmlib", cache_dir=None)
    listed = {f"rmlib.{module}" for module in architecture.listed(PAGE, tour)}
    doors = {f"rmlib.{room.name}" for room in ROOMS}
    handed_on = {
        f"rmlib.{room.name}.{module}"
        for room in ROOMS
        if (door := room / "__init__.pyi").is_file()
        for module in re.findall(r"^from \.(\w+) import", door.read_text(), re.MULTILINE)
    }
    known = listed | doors | handed_on
    led_to = {module for module in listed if graph.find_modules_that_directly_import(module) & known}
    assert listed - led_to - handed_on == set()


def test_the_page_names_every_room() -> None:
    named = set(re.findall(r"`(\w+)(?:/|\.py)`", PAGE))
    assert {room.name for room in ROOMS} | {"losses", "combining"} <= named


# --- addresses --------------------------------------------------------------------------------------------------------

# `benchmarks` alone is a room of rmlib in most sentences; as a command it is the folder beside it.
ADDRESS = re.compile(r"(?<![\w./])(?:(?:rmlib|tools)|(?<=-m )benchmarks)(?:\.[A-Za-z_]\w*)+")
NAMING = [
    ROOT / "README.md",
    ROOT / "Makefile",
    *sorted((ROOT / "data").glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "launch").iterdir()),
    *sorted(path for folder in ("rmlib", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")),
]


def exists(address: str) -> bool:
    """Whether an address leads to a module, or to something in one."""
    parts = address.split(".")
    for n_parts in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:n_parts]))
        except ModuleNotFoundError as error:
            if not address.startswith(str(error.name)):
                return True  # a script for an environment of its own
            continue
        for part in parts[n_parts:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("path", NAMING, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_address_that_is_named_exists(path: Path) -> None:
    named = {address.rstrip(".") for address in ADDRESS.findall(path.read_text())}
    named -= {address for address in named if address.split(".")[-1] in {"py", "json", "md", "ipynb"}}
    assert sorted(address for address in named if not exists(address)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_name_that_a_notebook_takes_from_the_library_exists(path: Path) -> None:
    """Without running it: imports are made, and attributes of what was imported are looked up."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    tree = ast.parse("\n".join(re.sub(r"(?m)^\s*[%!].*$", "", cell.source) for cell in cells))
    modules: dict[str, str] = {}
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rmlib":
            for name in node.names:
                modules[name.asname or name.name] = address = f"{node.module}.{name.name}"
                missing += [] if exists(address) else [address]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            address = f"{modules[node.value.id]}.{node.attr}"
            is_module = inspect.ismodule(importlib.import_module(modules[node.value.id].rpartition(".")[0]))
            missing += [] if not is_module or exists(address) else [address]
    assert missing == []
