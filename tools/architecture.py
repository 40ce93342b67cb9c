"""The structure of rmlib in numbers, and the two tours through it that docs/architecture.md gives to a newcomer.

    python -m tools.architecture          # lines, modules, entries and imports, and the modules of each tour
    python -m tools.architecture write    # and renew both tours in docs/architecture.md

A tour is what really runs: one step of training, and the scoring of a few benchmark items, watched call by call. Its
modules stand in the order in which they are first entered, each with the first sentence of its docstring.
"""

import ast
import importlib
import os
import pkgutil
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import grimp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rmlib"
PAGE = ROOT / "docs" / "architecture.md"
MOST_MODULES = {"training": 24, "scoring": 22}  # of a tour: more is not read in an hour


def counts() -> dict[str, int]:
    """Lines and modules of the library, entries of its folder, and imports of one module by another."""
    files = list(PACKAGE.rglob("*.py"))
    graph = grimp.build_graph("rmlib", cache_dir=None)
    return {
        "lines": sum(len(file.read_text().splitlines()) for file in files),
        "modules": len(files),
        "entries": sum(entry.name != "__pycache__" for entry in PACKAGE.iterdir()),
        "imports": sum(len(graph.find_modules_directly_imported_by(module)) for module in graph.modules),
    }


# --- tours ------------------------------------------------------------------------------------------------------------


def tours() -> dict[str, list[str]]:
    """The modules that one step of training and the scoring of a few items enter, each in its order."""
    for module in pkgutil.walk_packages([str(PACKAGE)], "rmlib."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)  # now, so that nothing runs for being imported
    with _nothing_kept():
        return {"training": entered(*_training()), "scoring": entered(*_scoring())}


def entered(*steps: Callable[[], Any]) -> list[str]:
    """The modules of rmlib in which a function runs while the steps are called, in order of first entry."""
    found: dict[str, None] = {}
    inside = f"{PACKAGE}{os.sep}"

    def watch(frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(inside) and frame.f_code.co_name != "<module>":
            found.setdefault(file)

    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        for step in steps:
            step()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    parts = (Path(file).relative_to(PACKAGE).with_suffix("").parts for file in found)
    return [".".join(part for part in names if part != "__init__") for names in parts]


def _training() -> tuple[Callable[[], Any], ...]:
    """From a notebook's cell to `optimizer.step()`: the model is made, the pairs are prepared, one step is taken."""
    from rmlib.experiments.arms import settings_for
    from rmlib.experiments.presets import preset_for
    from rmlib.sources import load_splits
    from rmlib.training import create_model, train

    splits = load_splits("simulated", max_pairs=60)
    settings = settings_for("bt_scaled", preset_for("embedded").change(max_steps=1), seed=0)
    return (lambda: train(create_model(settings), splits.train, settings, progress=False),)


def _scoring() -> tuple[Callable[[], Any], ...]:
    """From items to a report: the three calls of a benchmark."""
    from rmlib import benchmarks
    from rmlib.models import RewardModel

    model = RewardModel.create("embedded")
    some: list[Any] = []
    return (
        lambda: some.append(benchmarks.load("rewardbench", "simulated").select(range(20))),
        lambda: some.append(benchmarks.score(model, some[0], progress=False)),
        lambda: benchmarks.summarise(some[0], some[1], partial=True),
    )


@contextmanager
def _nothing_kept() -> Iterator[None]:
    """Runs and records in a folder of their own, so that every step is taken and not found."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"RMLIB_RUNS": f"{folder}/runs", "RMLIB_RESULTS": f"{folder}/results", "TQDM_DISABLE": "1"}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


# --- the page ---------------------------------------------------------------------------------------------------------


def sentence_of(module: str) -> str:
    """The first sentence of a module's docstring."""
    path = PACKAGE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    words = " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.?!]) (?=[A-Z])", words)[0]


def table(modules: list[str]) -> str:
    """A tour as the page shows it."""
    rows = [f"| {number} | `{module}` | {sentence_of(module)} |" for number, module in enumerate(modules, start=1)]
    return "\n".join(["| | module | |", "|---|---|---|", *rows])


def listed(page: str, tour: str) -> list[str]:
    """The modules of a tour as the page lists them."""
    return re.findall(r"^\| \d+ \| `([\w.]+)` \|", _between(tour).search(page)[0], re.MULTILINE)  # type: ignore[index]


def renew(page: str, found: dict[str, list[str]]) -> str:
    """The page with its tours as they are now."""
    for tour, modules in found.items():
        opening, closing = _between(tour).search(page).groups()  # type: ignore[union-attr]
        page = _between(tour).sub(f"{opening}\n{table(modules)}\n{closing}".replace("\\", r"\\"), page)
    return page


def _between(tour: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {tour}: .*?-->)\n.*?(<!-- end of {tour} -->)", re.DOTALL)


def main() -> None:
    """Print the numbers and the tours; with "write", renew the page."""
    print(", ".join(f"{number:,} {what}" for what, number in counts().items()))
    found = tours()
    for tour, modules in found.items():
        print(f"{tour}: {len(modules)} modules (at most {MOST_MODULES[tour]}): {' '.join(modules)}")
    if sys.argv[1:] == ["write"]:
        PAGE.write_text(renew(PAGE.read_text(), found))


if __name__ == "__main__":
    main()
