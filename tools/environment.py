"""Compare the running Python environment with pyproject.toml, and write the lock.

`python tools/environment.py check [extra ...]` exits with 1 and a list where something is missing or out of range;
`python -m pip list --format=freeze | python tools/environment.py lock` writes requirements.lock and environment.yml.
"""

import argparse
import json
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

ROOT = Path(__file__).resolve().parents[1]
LOCK_HEADER = """\
# Exact versions of everything that `make setup` installs, all extras included, one per line.
# Written by `make lock`: the newest versions that the ranges of pyproject.toml admit, in a new environment of
# Python 3.11 on Linux x86-64. CI tests these. Build tags such as +cpu are left out, so that each machine takes the
# build that fits it; on Linux the plain torch wheel brings its CUDA libraries along. Python 3.12 takes the same
# versions, and for papermill an aiohttp of pip's choice.
"""


def direct_requirements(*extras: str) -> list[str]:
    """The requirement lines of pyproject.toml: the dependencies, and those of the named extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]


def package_problems(lines: list[str]) -> list[str]:
    """What the running environment lacks of these requirement lines, in words; empty where it has everything."""
    try:
        from packaging.requirements import Requirement
    except ModuleNotFoundError:
        return ["packaging is missing, and with it most of the rest"]
    found = []
    for requirement in map(Requirement, lines):
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(f"{requirement.name} is missing (needed: {requirement.specifier})")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} is {version} (needed: {requirement.specifier})")
    return found


def rmlib_problems() -> list[str]:
    """Notebooks run in a folder of their own, so `import rmlib` must lead to this clone and to no other."""
    try:
        origin = metadata.distribution("rmlib").read_text("direct_url.json") or "{}"
    except metadata.PackageNotFoundError:
        return ["rmlib is not installed"]
    installed = unquote(urlparse(json.loads(origin).get("url", "")).path)
    if not installed or Path(installed).resolve() != ROOT:
        return [f"rmlib is installed from {installed or 'a copy'}, not from this folder"]
    return []


def check(extras: list[str]) -> int:
    """Print what is missing; 0 where nothing is."""
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        print(f"Python is {sys.version.split()[0]} (needed: 3.11 or 3.12)")
        return 1
    problems = package_problems(direct_requirements(*extras)) + rmlib_problems()
    print("\n".join(f"  {problem}" for problem in problems), end="\n" if problems else "")
    return 1 if problems else 0


def write_lock(freeze: str) -> None:
    """Write requirements.lock from `pip list --format=freeze`, and the same pins into environment.yml."""
    # torch asks for its own CUDA libraries, at exact versions, on the machines that use them.
    left_out = re.compile(r"pip|rmlib|triton|(nvidia|cuda)-.*")
    pins = re.findall(r"^([\w.-]+)==([^\s+]+)", freeze, re.MULTILINE)
    pins = sorted((pin for pin in pins if not left_out.fullmatch(pin[0])), key=lambda pin: pin[0].lower())
    (ROOT / "requirements.lock").write_text(LOCK_HEADER + "".join(f"{name}=={version}\n" for name, version in pins))
    versions = {name.lower().replace("_", "-"): version for name, version in pins}
    conda = ROOT / "environment.yml"
    pin = re.compile(r"(?<=      - )([\w.-]+)==\S+")
    conda.write_text(pin.sub(lambda line: f"{line[1]}=={versions[line[1].lower()]}", conda.read_text()))
    print(f"requirements.lock: {len(pins)} packages; environment.yml: the same versions")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "lock"])
    parser.add_argument("extras", nargs="*", help="extras of pyproject.toml to check as well: notebooks, dev, offline")
    arguments = parser.parse_args()
    if arguments.command == "check":
        sys.exit(check(arguments.extras))
    write_lock(sys.stdin.read())
