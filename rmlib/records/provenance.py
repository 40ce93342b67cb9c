"""What a result came from: the commit, the command, versions of packages, hardware. No folder of this machine."""

import contextlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path, PureWindowsPath
from typing import Any

from rmlib.records import paths

PACKAGES = ("torch", "transformers", "numpy", "datasets")
# A path that means something on one machine alone: absolute, of a home, or leading out of the clone.
MACHINE_PATH = re.compile(r"/[\w.]|~\w*/|\.\.([/\\]|$)|[A-Za-z]:[/\\]|\\\\")
# What a run writes itself does not make the code another one.
_WRITTEN_BY_RUNS = (":(exclude)data/results", ":(exclude)figures")


def provenance() -> dict[str, Any]:
    """What a result came from: commit ("-dirty" where files were changed), command, package versions, hardware."""
    return {"commit": _commit(), "command": _command(), "packages": _packages(), "hardware": _hardware()}


def typed_command(program: str, arguments: Sequence[str], hidden: Collection[str]) -> str:
    """A command as records may show it: the value of a hidden option becomes the name of a variable.

    `hidden` names the options (without dashes) whose values mean something on one machine alone, such as a folder.
    """
    words = [program]
    for index, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        before = (option if equals else arguments[index - 1]).lstrip("-")
        shown = before not in hidden or (value if equals else word) in paths.NOT_FOLDERS
        variable = f"${before.upper()}"
        words.append(shlex.quote(word) if shown else f"{option}={variable}" if equals else variable)
    return " ".join(words)


def _commit() -> str:
    try:
        folder = paths.root()
        # An rmlib that lies inside some other repository must not be taken for a commit of that one.
        if Path(_git(folder, "rev-parse", "--show-toplevel")).resolve() != folder.resolve():
            return "unknown"
        changed = _git(folder, "status", "--porcelain", "--", ".", *_WRITTEN_BY_RUNS)
        return _git(folder, "rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # no clone, no git, or no commit yet
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def _command() -> str:
    if "RMLIB_COMMAND" in os.environ:
        return os.environ["RMLIB_COMMAND"]
    if Path(sys.argv[0]).name == "ipykernel_launcher.py":
        return "notebook"
    return shlex.join(_without_folder(argument) for argument in sys.argv)


def _without_folder(argument: str) -> str:
    option, equals, value = argument.partition("=")
    if MACHINE_PATH.match(argument):
        return PureWindowsPath(argument).name
    return f"{option}={PureWindowsPath(value).name}" if equals and MACHINE_PATH.match(value) else argument


@cache
def _packages() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


@cache
def _hardware() -> dict[str, Any]:
    # A process that never loaded torch did not use a GPU, and loading it here to look for one takes seconds.
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else None
    return {"cpu": _cpu_name(), "cores": os.cpu_count(), "gpu": gpu}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
