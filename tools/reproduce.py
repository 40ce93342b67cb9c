"""Run the notebooks of the paper's line, 01 to 05, on any data and any backbone, with one bar and the time left.

    python -m tools.reproduce --data FOLDER --backbone minilm --only 02,03 -p seeds "[0, 1]"

Executed copies lie in `runs/notebooks/<source>-<backbone>/`; what the notebooks themselves write (records, figures) is
theirs. A notebook that fails stops the line; earlier results stay, and the same command goes on from there, because
experiments return runs that are finished.
"""

import argparse
import ast
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError

from rmlib.records import paths
from tools.notebook_progress import Progress, code_cells

LINE = ("01", "02", "03", "04", "05")  # 00 is a map to read; what comes after 05 runs when asked for
# 01 needs no model, and before 05 nothing needs what it writes: it runs beside 04, which mostly leaves a core idle.
BESIDE = {"04": "01"}
# ipykernel warns that it listens on this machine's loopback: true of each kernel, and noise in the progress bar.
QUIET_KERNEL = ["--log-level=ERROR"]
GO_ON = "What was finished before is kept; the same command goes on from there."
WIDGET = "application/vnd.jupyter.widget-view+json"  # needs a kernel: kept notebooks show the figure beside it


class NotebookFailed(RuntimeError):
    """A notebook stopped at an error; the message names the notebook, the cell and the error."""


@dataclass(frozen=True)
class Task:
    """One notebook, the parameters that it is given, and where its executed copy goes (None: in place)."""

    notebook: Path
    parameters: dict[str, Any]
    output: Path | None


@dataclass(frozen=True)
class Outcome:
    """What one notebook took and wrote."""

    name: str
    seconds: float
    n_figures: int | None  # None where another notebook was writing too
    n_records: int | None


def select_notebooks(folder: Path, only: str | None, default: Sequence[str]) -> list[Path]:
    """The notebooks whose numbers `only` lists ("02,03"; None: `default`), in order; ValueError for an unknown one."""
    known = {path.name[:2]: path for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}
    wanted = [number.strip().zfill(2) for number in only.split(",")] if only else list(default)
    unknown = [number for number in wanted if number not in known]
    if unknown:
        raise ValueError(f"no notebook numbered {', '.join(unknown)} in {folder.name}/; there are {', '.join(known)}")
    return [known[number] for number in sorted(set(wanted))]


def declared_parameters(notebook: Path) -> dict[str, Any]:
    """Name and default of each parameter that the notebook's parameters cell declares."""
    found = papermill.inspect_notebook(str(notebook))
    return {name: ast.literal_eval(parameter["default"]) for name, parameter in found.items()}


def parse_value(name: str, text: str, default: Any) -> Any:
    """The typed value of a parameter whose default has the type that is wanted; ValueError where it does not fit."""
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if default is not None and type(value) is not type(default):
        raise ValueError(f"parameter {name}: {text!r} is no {type(default).__name__}; the default is {default!r}")
    return value


def choose_parameters(
    notebooks: Sequence[Path], line: dict[str, str], extra: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """For each notebook the parameters it is to be given: `line` (data, backbone) and those of `extra` it declares.

    ValueError where no notebook declares one of `extra`, or one notebook would run on other data than asked for.
    """
    declared = {notebook: declared_parameters(notebook) for notebook in notebooks}
    known = sorted(set().union(*declared.values()))
    for name, _ in extra:
        if name not in known:
            raise ValueError(f"no notebook that is to run has a parameter {name}; there are {', '.join(known)}")
    chosen = []
    for notebook, defaults in declared.items():
        lacks = [name for name, value in line.items() if name not in defaults and value not in paths.NOT_FOLDERS]
        if lacks:
            raise ValueError(f"{notebook.name} has no parameter {', '.join(lacks)}: leave it out with --only")
        given = [(name, value) for name, value in [*line.items(), *extra] if name in defaults]
        chosen.append({name: parse_value(name, value, defaults[name]) for name, value in given})
    return chosen


def typed_command(options: argparse.Namespace) -> str:
    """The make command that runs the same, for the records: a folder of this machine becomes a variable's name."""
    words = ["make notebooks" if options.write_back else "make reproduce"]
    for variable, value, default in (("DATA", options.data, "simulated"), ("BACKBONE", options.backbone, "embedded")):
        if value != default:
            words.append(f"{variable}={_hidden(variable, value)}")
    if options.only:
        words.append(f"ONLY={options.only}")
    extra = " ".join(f"-p {name} {shlex.quote(_hidden(name.upper(), value))}" for name, value in options.parameters)
    return " ".join(words) + (f' ARGS="{extra}"' if extra else "")


def _hidden(variable: str, value: str) -> str:
    return f"${variable}" if Path(paths.absolute(value)).is_absolute() else value


def execute(task: Task, progress: Progress) -> None:
    """Run one notebook in a kernel of its own; NotebookFailed where a cell raises or the kernel dies."""
    progress.notebook_starts(task.notebook)
    try:
        if task.output is None:
            write_back(task.notebook, progress)
        else:
            task.output.parent.mkdir(parents=True, exist_ok=True)
            papermill.execute_notebook(
                task.notebook, task.output, task.parameters, kernel_name="python3", progress_bar=False,
                cwd=task.notebook.parent, extra_arguments=QUIET_KERNEL,
                on_cell_execute=progress.cell_starts, on_cell_executed=progress.cell_ends,
            )  # fmt: skip
    except (PapermillExecutionError, CellExecutionError, DeadKernelError) as error:
        what = f"{getattr(error, 'ename', type(error).__name__)}: {getattr(error, 'evalue', error)}"
        raise NotebookFailed(f"{task.notebook.name}, cell In [{progress.cell}]: {what}") from error


def write_back(notebook: Path, progress: Progress) -> None:
    """Run a notebook as it stands and put its new outputs in place; a notebook that fails is left as it was."""
    content = nbformat.read(notebook, as_version=4)
    for cell in code_cells(content):
        cell.execution_count, cell.outputs = None, []
    NotebookClient(
        content, kernel_name="python3", timeout=None, record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(notebook.parent)}}, extra_arguments=QUIET_KERNEL,
        on_cell_execute=progress.cell_starts, on_cell_executed=progress.cell_ends,
    ).execute()  # fmt: skip
    for cell in code_cells(content):
        _keep_longest(cell, progress.seconds[cell.source])
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
    content.metadata = _plain_metadata(content.metadata)
    unfinished = notebook.with_suffix(".partial")
    nbformat.write(content, unfinished)
    os.replace(unfinished, notebook)


def _keep_longest(cell: NotebookNode, seconds: float) -> None:
    # Finished runs are used again, so a repeat is quicker than what a new clone will see: expect the longest.
    longest = max(seconds, cell.metadata.get("rmlib", {}).get("seconds", 0.0))
    if longest >= 1:
        cell.metadata["rmlib"] = {"seconds": round(longest, 1)}


def _plain_metadata(metadata: NotebookNode) -> NotebookNode:
    """What any machine would write: no name of a local kernel, no Python version, no papermill, no widget state."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    kept = {key: value for key, value in metadata.items() if key not in {"papermill", "widgets"}}
    return nbformat.from_dict(kept | {"kernelspec": kernel, "language_info": {"name": "python"}})


def run_line(tasks: Sequence[Task]) -> list[Outcome]:
    """Run the notebooks one after the other (see BESIDE); those before a failure have kept what they wrote."""
    os.environ["TQDM_DISABLE"] = "1"  # of the kernels' bars: one bar is enough here, and outputs stay free of them
    numbered = {task.notebook.name[:2]: task for task in tasks}
    aside = {number: other for number, other in BESIDE.items() if {number, other} <= numbered.keys()}
    in_turn = [task for number, task in numbered.items() if number not in aside.values()]
    outcomes = []
    with (
        Progress([(task.notebook, task.output) for task in in_turn]) as progress,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        for task in in_turn:
            other = aside.get(task.notebook.name[:2])
            if other is None:
                outcomes.append(_run(task, progress))
            else:
                beside = pool.submit(_run_unseen, numbered[other])
                together = [_run(task, progress), beside.result()]
                outcomes += [replace(one, n_figures=None, n_records=None) for one in together]
    return sorted(outcomes, key=lambda outcome: outcome.name)


def _run(task: Task, progress: Progress) -> Outcome:
    started, before = time.time(), _count_records()
    execute(task, progress)
    figures = [path for path in paths.figures_dir().rglob("*.png") if path.stat().st_mtime >= started - 1]
    return Outcome(task.notebook.stem, time.time() - started, len(figures), _count_records() - before)


def _run_unseen(task: Task) -> Outcome:
    """In a process of its own, without a bar."""
    with Progress([(task.notebook, task.output)], show=False) as progress:
        return _run(task, progress)


def _count_records() -> int:
    return sum(len(path.read_bytes().splitlines()) for path in paths.results_dir().glob("*.jsonl"))


def summary(outcomes: Sequence[Outcome], records: Path) -> str:
    """The table shown at the end: seconds, figures written and records added, per notebook (–: not told apart)."""
    width = max(len(outcome.name) for outcome in outcomes)
    rows = [f"{'notebook':<{width}}  {'seconds':>8}  {'figures':>8}  {'records':>8}"]
    for outcome in outcomes:
        figures, written = ("–" if n is None else n for n in (outcome.n_figures, outcome.n_records))
        rows.append(f"{outcome.name:<{width}}  {outcome.seconds:>8.0f}  {figures:>8}  {written:>8}")
    return "\n".join([*rows, f"records: {_shown(records)}", f"figures: {_shown(paths.figures_dir() / records.stem)}"])


def _shown(path: Path) -> str:
    return str(path.relative_to(paths.root())) if path.is_relative_to(paths.root()) else str(path)


def plan(options: argparse.Namespace) -> tuple[list[Task], str]:
    """The notebooks to run with their parameters, and the name of the line; ValueError for what cannot be run."""
    folder = paths.root() / "notebooks"
    data, backbone = paths.absolute(options.data), paths.absolute(options.backbone)
    if options.write_back:
        if (data, backbone, options.parameters) != ("simulated", "embedded", []):
            raise ValueError("--write-back runs the committed notebooks as they stand: leave out data, backbone and -p")
        numbers = [path.name[:2] for path in folder.glob("[0-9][0-9]_*.ipynb")]
        tasks = [Task(notebook, {}, None) for notebook in select_notebooks(folder, options.only, numbers)]
        return tasks, paths.line_name(data, backbone)
    notebooks = select_notebooks(folder, options.only, LINE)
    chosen = choose_parameters(notebooks, {"data": data, "backbone": backbone}, options.parameters)
    from rmlib import sources  # takes seconds to import, which a mistyped option need not wait for

    name = paths.line_name(sources.describe(data).name, backbone)
    target = paths.runs_dir() / "notebooks" / name
    return [Task(path, given, target / path.name) for path, given in zip(notebooks, chosen, strict=True)], name


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.reproduce", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="simulated", help="simulated (default), hub, or a folder of pairs")
    parser.add_argument("--backbone", default="embedded", help="embedded (default), minilm, a hub id or a folder")
    parser.add_argument("--only", metavar="NUMBERS", help="which notebooks, e.g. 02,03; default 01 to 05")
    parser.add_argument(
        "-p", dest="parameters", nargs=2, metavar=("NAME", "VALUE"), action="append", default=[],
        help="a parameter for the notebooks that declare it",
    )  # fmt: skip
    parser.add_argument("--write-back", action="store_true", help="renew the committed notebooks' outputs in place")
    options = parser.parse_args(argv)
    options.parameters = [tuple(pair) for pair in options.parameters]
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; 0, or 1 (130 when interrupted) with what stopped it."""
    options = parse_options(argv)
    os.environ["RMLIB_COMMAND"] = typed_command(options)
    os.environ.pop("MPLBACKEND", None)  # kernels choose the inline backend only where nothing is set
    try:
        tasks, name = plan(options)
        print(f"{os.environ['RMLIB_COMMAND']}: {', '.join(task.notebook.stem for task in tasks)}", flush=True)
        outcomes = run_line(tasks)
    except NotebookFailed as failure:
        print(f"{failure}\n{GO_ON}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped\n{GO_ON}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary(outcomes, paths.results_dir() / f"{name}.jsonl"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
