"""The driver on small notebooks of its own: parameters, failures, the progress bar, committed outputs."""

import argparse
import os
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rmlib.records import paths
from tools import reproduce
from tools.notebook_progress import Progress, expected_seconds
from tools.reproduce import NotebookFailed, Task

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
PARAMETERS = 'data: str = "simulated"\nbackbone: str = "embedded"\nrate: float = 0.5  # a share\nseeds: list = [0, 1]'


@pytest.fixture(autouse=True)
def _folders_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RESULTS", "FIGURES", "RUNS"):
        monkeypatch.setenv(f"RMLIB_{name}", str(tmp_path / name.lower()))


def write_notebook(path: Path, *sources: str, parameters: str = PARAMETERS) -> Path:
    cells = [new_markdown_cell("# contract"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    content = new_notebook(cells=cells + [new_code_cell(source) for source in sources], metadata=KERNEL)
    path.parent.mkdir(exist_ok=True)
    nbformat.write(content, path)
    return path


def texts(path: Path) -> str:
    outputs = [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def options(**given: object) -> argparse.Namespace:
    defaults = {"data": "simulated", "backbone": "embedded", "only": None, "parameters": [], "write_back": False}
    return argparse.Namespace(**(defaults | given))


def test_the_line_is_notebooks_01_to_05_and_others_run_when_asked_for(tmp_path: Path) -> None:
    for number in range(8):
        write_notebook(tmp_path / f"{number:02}_name.ipynb")
    chosen = reproduce.select_notebooks(tmp_path, None, reproduce.LINE)
    assert [path.name[:2] for path in chosen] == ["01", "02", "03", "04", "05"]
    assert [path.name[:2] for path in reproduce.select_notebooks(tmp_path, "7, 2", reproduce.LINE)] == ["02", "07"]


def test_a_notebook_number_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    write_notebook(tmp_path / "02_name.ipynb")
    with pytest.raises(ValueError, match="no notebook numbered 09 .* there are 02"):
        reproduce.select_notebooks(tmp_path, "09", reproduce.LINE)


def test_values_take_the_type_of_the_declared_default() -> None:
    assert reproduce.parse_value("seeds", "[3]", [0, 1]) == [3]
    assert reproduce.parse_value("name", "07", "text") == "07"
    as_float = reproduce.parse_value("rate", "1", 0.5)
    assert as_float == 1.0 and isinstance(as_float, float)


@pytest.mark.parametrize(("text", "default"), [("two", 1), ("0.5", 1), ("true", True), ("3", [0])])
def test_a_value_of_another_type_is_refused_by_name(text: str, default: object) -> None:
    with pytest.raises(ValueError, match=f"parameter steps: '{text}'.*default"):
        reproduce.parse_value("steps", text, default)


def test_an_unknown_parameter_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "01_name.ipynb")
    with pytest.raises(ValueError, match="parameter lr; there are backbone, data, rate, seeds"):
        reproduce.choose_parameters([notebook], {}, [("lr", "1")])


def test_each_notebook_is_given_only_what_it_declares(tmp_path: Path) -> None:
    one = write_notebook(tmp_path / "01_one.ipynb")
    two = write_notebook(tmp_path / "02_two.ipynb", parameters='data: str = "simulated"\nsteps: int = 3')
    given = reproduce.choose_parameters([one, two], {"data": "hub"}, [("steps", "5"), ("rate", "0.25")])
    assert given == [{"data": "hub", "rate": 0.25}, {"data": "hub", "steps": 5}]


def test_a_notebook_that_would_run_on_other_data_than_asked_for_is_refused(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "06_other.ipynb", parameters="steps: int = 3")
    with pytest.raises(ValueError, match="06_other.ipynb has no parameter data"):
        reproduce.choose_parameters([notebook], {"data": str(tmp_path)}, [])


def test_the_recorded_command_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    asked = options(data=str(tmp_path), backbone="minilm", only="02,03", parameters=[("seeds", "[0, 1]")])
    expected = "make reproduce DATA=$DATA BACKBONE=minilm ONLY=02,03 ARGS=\"-p seeds '[0, 1]'\""
    assert reproduce.typed_command(asked) == expected
    assert reproduce.typed_command(options()) == "make reproduce"
    assert reproduce.typed_command(options(data="hub", backbone="org/model")).endswith("DATA=hub BACKBONE=org/model")


def test_a_relative_folder_becomes_absolute_and_a_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "hub"):
        (tmp_path / name).mkdir()
    assert paths.absolute("mine") == str(tmp_path / "mine")
    assert [paths.absolute(name) for name in ("hub", "org/model")] == ["hub", "org/model"]


def test_a_line_runs_with_its_parameters_and_counts_what_was_written(tmp_path: Path) -> None:
    write = "from rmlib.records import paths\nfolder = paths.results_dir()\nfolder.mkdir(parents=True, exist_ok=True)"
    lines = "(folder / 'x.jsonl').open('a').write('1\\n2\\n')\nprint(rate, seeds)"
    notebook = write_notebook(tmp_path / "notebooks" / "01_one.ipynb", write, lines)
    task = Task(notebook, {"rate": 0.25}, tmp_path / "copies" / "01_one.ipynb")
    (outcome,) = reproduce.run_line([task])
    assert texts(tmp_path / "copies" / "01_one.ipynb") == "0.25 [0, 1]\n"
    assert (outcome.name, outcome.n_records, outcome.n_figures) == ("01_one", 2, 0)
    assert texts(notebook) == ""  # the committed notebook is not touched


def test_a_failure_names_notebook_cell_and_error_and_keeps_what_was_done_before(tmp_path: Path) -> None:
    good = write_notebook(tmp_path / "01_good.ipynb", "print('done')")
    bad = write_notebook(tmp_path / "02_bad.ipynb", "1 + 1", "raise KeyError('subset xstest')")
    tasks = [Task(path, {"rate": 0.1}, tmp_path / "copies" / path.name) for path in (good, bad)]
    # In [1] holds the declared parameters, In [2] the given ones.
    with pytest.raises(NotebookFailed, match=r"02_bad.ipynb, cell In \[4\]: KeyError: 'subset xstest'"):
        reproduce.run_line(tasks)
    assert texts(tmp_path / "copies" / "01_good.ipynb") == "done\n"


def test_01_and_04_run_side_by_side_and_a_failure_of_either_is_named(tmp_path: Path) -> None:
    meet = "import pathlib, time\nown, other = pathlib.Path('{0}/{1}'), pathlib.Path('{0}/{2}')\nown.touch()\n"
    meet += "while not other.exists():\n    time.sleep(0.1)"  # for ever, where one runs after the other
    one = write_notebook(tmp_path / "01_one.ipynb", meet.format(tmp_path, "a", "b"), "1 / 0")
    two = write_notebook(tmp_path / "02_two.ipynb", "print('two')")
    four = write_notebook(tmp_path / "04_four.ipynb", meet.format(tmp_path, "b", "a"), "print('four')")
    tasks = [Task(path, {}, tmp_path / "copies" / path.name) for path in (one, two, four)]
    with pytest.raises(NotebookFailed, match="01_one.ipynb.*ZeroDivisionError"):
        reproduce.run_line(tasks)
    assert texts(tmp_path / "copies" / "04_four.ipynb") == "four\n"
    write_notebook(tmp_path / "01_one.ipynb", "print('one')")
    outcomes = reproduce.run_line(tasks)
    counted = [(outcome.name, outcome.n_records) for outcome in outcomes]
    assert counted == [("01_one", None), ("02_two", 0), ("04_four", None)]
    assert "–" in reproduce.summary(outcomes, tmp_path / "records.jsonl")


def test_a_kernel_that_dies_is_a_failure_with_its_cell(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "01_dies.ipynb", "import os; os._exit(3)")
    with pytest.raises(NotebookFailed, match=r"01_dies.ipynb, cell In \[2\]: DeadKernelError"):
        reproduce.run_line([Task(notebook, {}, tmp_path / "copy.ipynb")])


def test_writing_back_leaves_counts_from_one_and_nothing_of_this_machine(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "01_one.ipynb", "print(rate)")
    content = nbformat.read(notebook, 4)
    content.metadata["papermill"] = {"input_path": "somewhere"}
    content.metadata["kernelspec"]["display_name"] = "my own kernel"
    nbformat.write(content, notebook)
    reproduce.run_line([Task(notebook, {}, None)])
    after = nbformat.read(notebook, 4)
    assert [cell.execution_count for cell in after.cells if cell.cell_type == "code"] == [1, 2]
    assert after.metadata == KERNEL | {"language_info": {"name": "python"}}
    assert texts(notebook) == "0.5\n"
    assert [path.name for path in tmp_path.iterdir()] == ["01_one.ipynb"]


def test_a_widget_is_not_written_back_but_what_stands_beside_it_is(tmp_path: Path) -> None:
    lines = ["import ipywidgets", "print(rate)", "display(ipywidgets.IntSlider())"]
    notebook = write_notebook(tmp_path / "01_one.ipynb", "\n".join(lines))
    reproduce.run_line([Task(notebook, {}, None)])
    after = nbformat.read(notebook, 4)
    assert texts(notebook) == "0.5\n" and "widgets" not in after.metadata
    assert not any(reproduce.WIDGET in output.get("data", {}) for output in after.cells[-1].outputs)


def test_writing_back_a_notebook_that_fails_leaves_it_as_it_was(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "01_bad.ipynb", "print('before')", "1 / 0")
    before = notebook.read_bytes()
    with pytest.raises(NotebookFailed, match="ZeroDivisionError"):
        reproduce.run_line([Task(notebook, {}, None)])
    assert notebook.read_bytes() == before


def test_cells_are_expected_to_take_what_they_took_last_time(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "01_one.ipynb", "slow()", "new()", "committed()", "")
    content = nbformat.read(notebook, 4)
    content.cells[4].metadata["rmlib"] = {"seconds": 7.5}
    nbformat.write(content, notebook)
    last = write_notebook(tmp_path / "last" / "01_one.ipynb", "slow()", "gone()")
    content = nbformat.read(last, 4)
    for cell, seconds in zip(content.cells[2:], (30.0, 50.0), strict=True):
        cell.metadata["papermill"] = {"duration": seconds}
    nbformat.write(content, last)
    expected = [(PARAMETERS, 1.0), ("slow()", 30.0), ("new()", 1.0), ("committed()", 7.5)]
    assert expected_seconds(notebook, last) == expected


def test_the_bar_counts_expected_seconds_and_ends_full(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "01_one.ipynb", "a", "b")
    cells = nbformat.read(notebook, 4).cells[1:]
    cells[1].metadata["rmlib"] = {"seconds": 8.0}
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), notebook)
    with Progress([(notebook, None)]) as progress:
        progress.notebook_starts(notebook)
        shares = []
        for cell in cells:
            progress.cell_starts(cell)
            progress.cell_ends(cell)
            progress._show()
            shares.append(progress._bar.n / progress._bar.total)
    assert shares == [0.1, 0.9, 1.0]  # 1, 8 and 1 of 10 seconds
    assert progress.cell == 3


def test_an_unknown_source_ends_with_one_line_and_status_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(tmp_path / "notebooks" / "01_one.ipynb")
    monkeypatch.setattr(reproduce.paths, "root", lambda: tmp_path)
    monkeypatch.setenv("RMLIB_COMMAND", "")  # both are put back after the test
    monkeypatch.setenv("MPLBACKEND", "Agg")
    assert reproduce.main(["--data", "no-such-source", "--only", "1"]) == 1
    error = capfd.readouterr().err
    assert "no-such-source" in error and len(error.splitlines()) == 1
    assert os.environ["RMLIB_COMMAND"] == "make reproduce DATA=no-such-source ONLY=1"
    assert "MPLBACKEND" not in os.environ  # else notebooks show no figures
