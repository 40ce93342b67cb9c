"""Every notebook: committed outputs of one clean run, the agreed form, and a small run from nothing."""

import ast
import os
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbformat import NotebookNode

from rmlib import sources

ROOT = Path(__file__).resolve().parents[1]
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAXIMUM_BYTES = 500_000
MAXIMUM_LINES = 30  # of a code cell
WITHOUT_PARAMETERS = {"00_start_here"}  # may do without; every other notebook takes data and backbone

# Parameters that make each notebook small: seconds, not minutes. A name that its notebook does not declare fails.
SMOKE: dict[str, dict[str, Any]] = {
    "00_start_here": {"max_pairs": 150, "max_steps": 4},
    "01_data_exploration": {"max_pairs": 150, "draws": 50},
    "02_bt_vs_regression": {"max_pairs": 150, "max_steps": 4, "seeds": [0, 1]},
    "03_combined_methods": {"max_pairs": 150, "max_steps": 4, "seeds": [0, 1], "ranked_prompts": 300},
    "04_rewardbench": {"max_pairs": 150, "max_steps": 4, "arms": ["regression", "bt_scaled_init_expo"]},
    "05_figures": {},
    "06_alignment": {
        "max_pairs": 150,
        "max_steps": 4,
        "seeds": [0],
        "arms": ["bt_scaled_init", "ensemble"],
        "ensemble": [0, 1],
        "fitted": 400,
        "align_steps": 2,
        "watched": 12,
        "best_of": 4,
        "compared": 12,
        "processes": 1,
    },  # fmt: skip
    "07_pairwise_justifier": {
        "max_pairs": 150,
        "max_steps": 4,
        "n_steps": 3,
        "seeds": [0],
        "judged_pairs": 12,
        "max_new_tokens": 40,
        "benchmark_subsets": ["math-prm"],
    },  # fmt: skip
}
# Records of other runs that notebook 05 finds beside its own: trained ones, and some that only have annotations.
OTHER_RECORDS = ("simulated-embedded*", "helpsteer2-minilm*", "ukpconvarg1-minilm*")

every_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parameters_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]


def plain(source: str) -> str:
    """The cell as Python: lines of magics and of shell commands left out."""
    return "\n".join(line for line in source.splitlines() if not re.match(r"\s*[%!]", line))


def shown_texts(path: Path) -> list[str]:
    """Everything in the notebook that is text: sources and outputs, images aside."""
    texts = [cell.source for cell in read(path).cells]
    for output in (output for cell in code_cells(path) for output in cell.outputs):
        texts += [output.get("text", ""), *output.get("traceback", [])]
        texts += [str(shown) for kind, shown in output.get("data", {}).items() if not kind.startswith("image/")]
    return texts


def test_the_notebooks_of_the_line_are_all_there() -> None:
    assert list(SMOKE) == [path.stem for path in PATHS], "SMOKE names every notebook, in order"


@every_notebook
def test_committed_outputs_come_from_one_clean_run(path: Path) -> None:
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any(cell.outputs for cell in cells)


@every_notebook
def test_committed_outputs_hold_no_error_and_no_warning(path: Path) -> None:
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert [output.ename for output in outputs if output.output_type == "error"] == []
    assert [line for output in outputs for line in output.get("text", "").splitlines() if "Warning:" in line] == []


@every_notebook
def test_committed_outputs_show_without_a_kernel(path: Path) -> None:
    kinds = {kind for cell in code_cells(path) for output in cell.outputs for kind in output.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" not in kinds, "a widget shows nothing on a web page"


@every_notebook
def test_a_notebook_is_small_enough_to_read_on_the_web(path: Path) -> None:
    assert path.stat().st_size < MAXIMUM_BYTES


@every_notebook
def test_a_notebook_opens_with_its_contract(path: Path) -> None:
    first = read(path).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith(f"# {path.stem[:2]} ")
    for part in ("Reads", "writes", "min"):
        assert part in first.source, f"the contract says what is read, what is written and how many min: no {part!r}"


@every_notebook
def test_one_cell_declares_the_parameters_as_plain_literals(path: Path) -> None:
    cells = parameters_cells(path)
    assert len(cells) == 1 or (path.stem in WITHOUT_PARAMETERS and not cells)
    declared = {}
    for statement in ast.parse("\n".join(cell.source for cell in cells)).body:
        assert isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value
        declared[statement.target.id] = ast.literal_eval(statement.value)
    assert declared.keys() == papermill.inspect_notebook(str(path)).keys()  # papermill reads them line by line
    if path.stem not in WITHOUT_PARAMETERS:
        assert {"data": "simulated", "backbone": "embedded"}.items() <= declared.items()


@every_notebook
def test_logic_lives_in_the_library_and_a_notebook_defines_only_plots(path: Path) -> None:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [node for cell in code_cells(path) for node in ast.walk(ast.parse(plain(cell.source)))]
    names = [node.name for node in nodes if isinstance(node, definitions)]
    assert [name for name in names if not name.startswith("plot")] == []


@every_notebook
def test_code_cells_are_short(path: Path) -> None:
    lengths = [len(cell.source.splitlines()) for cell in code_cells(path)]
    assert [length for length in lengths if length > MAXIMUM_LINES] == []


FOLDERS = "|".join(["root", "home", "work", "Users", "mnt", "opt", "tmp", "private"])
ABSOLUTE = re.compile(rf"(?<![\w.$}})\]>-])/(?:{FOLDERS})/[\w.]|\.\./" + r"shared|[A-Z]:\\Users")


@every_notebook
def test_no_source_or_output_names_a_folder_of_one_machine(path: Path) -> None:
    found = [line.strip()[:120] for text in shown_texts(path) for line in text.splitlines() if ABSOLUTE.search(line)]
    assert found == []
    assert "papermill" not in read(path).metadata
    assert read(path).metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that each notebook gets a copy of: the simulated pairs, read once, and some records."""
    place = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RMLIB_RUNS", str(place / "runs"))
        sources.load("simulated")
    (place / "results").mkdir()
    for file in (file for pattern in OTHER_RECORDS for file in (ROOT / "data" / "results").glob(pattern)):
        shutil.copy(file, place / "results")
    return place


@every_notebook
def test_a_notebook_runs_small_and_leaves_committed_files_alone(
    path: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Notebook 05 draws what others recorded; a copy lets each notebook run alone and write as it likes.
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    for name in ("RESULTS", "FIGURES", "RUNS"):
        monkeypatch.setenv(f"RMLIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("RMLIB_COMMAND", "make test")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # so that figures are drawn into the notebook
    parameters = SMOKE.get(path.stem, {})
    assert parameters.keys() <= papermill.inspect_notebook(str(path)).keys()
    before = committed_files()
    papermill.execute_notebook(
        path, tmp_path / path.name, parameters, kernel_name="python3", progress_bar=False, cwd=path.parent,
        execution_timeout=600,  # of a cell: one that hangs is a failure, not a job that never ends
    )  # fmt: skip
    assert committed_files() == before


def committed_files() -> dict[str, int]:
    """Every file that a notebook might write to, with the time of its last change."""
    folders = [ROOT / "data", ROOT / "figures", ROOT / "notebooks"]
    entries = [Path(folder, name) for top in folders for folder, _, names in os.walk(top) for name in names]
    return {str(entry): entry.stat().st_mtime_ns for entry in entries}
