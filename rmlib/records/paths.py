"""Where things lie in a clone: committed data, records and figures, and the runs that git ignores.

Each folder that is written to can be moved with an environment variable (RMLIB_RESULTS, RMLIB_FIGURES, RMLIB_RUNS),
so that tests and trials leave the committed files alone.
"""

import os
import re
from pathlib import Path

# Names of data and backbones that win over a folder called the same.
NOT_FOLDERS = {"simulated", "simulated-ranked", "hub", "embedded", "minilm"}


def root() -> Path:
    """The folder of the clone; FileNotFoundError where rmlib was copied into an environment instead."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "pyproject.toml").is_file():
        raise FileNotFoundError("rmlib reads data/ beside it: install it from a clone, with pip install -e .")
    return folder


def data_dir() -> Path:
    """Committed data: `embedded/`, `published/` and the records."""
    return root() / "data"


def results_dir() -> Path:
    """Records of runs and scores, one JSON-lines file per source and backbone."""
    return _moved("RMLIB_RESULTS", data_dir() / "results")


def figures_dir() -> Path:
    """Figures and tables, one folder per source and backbone."""
    return _moved("RMLIB_FIGURES", root() / "figures")


def runs_dir() -> Path:
    """One folder per run: settings, log, checkpoints, model."""
    return _moved("RMLIB_RUNS", root() / "runs")


def line_name(source: str, backbone: str) -> str:
    """The name that records and figures of one source and one backbone share, e.g. `simulated-embedded`.

    Of a hub id or a folder the last part counts; what a file name should not hold becomes `_`.
    """
    parts = (Path(str(part)).name.lower() for part in (source, backbone))
    return "-".join(re.sub(r"[^a-z0-9._]+", "_", part) for part in parts)


def _moved(variable: str, default: Path) -> Path:
    folder = os.environ.get(variable)
    return Path(folder).expanduser().resolve() if folder else default


def absolute(name_or_folder: str) -> str:
    """A folder with its full path, since notebooks run in a folder of their own; any other name as it is."""
    folder = Path(name_or_folder).expanduser()
    return str(folder.resolve()) if name_or_folder not in NOT_FOLDERS and folder.is_dir() else name_or_folder


def public_name(backbone: str) -> str:
    """A backbone's name as records may show it: a folder is reduced to its last part, a hub id stays."""
    return Path(backbone).name if Path(backbone).is_dir() else backbone
