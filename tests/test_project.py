"""The files around the code agree with each other: pins, environment, imports, README, and no trace of one machine."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import rmlib
from rmlib.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PIN = re.compile(r"[\w.-]+==[\w.!]+")


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def pins(lines: list[str]) -> dict[str, str]:
    return {name: str(requirement.specifier)[2:] for name, requirement in requirements(lines).items()}


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def conda_pip_lines() -> list[str]:
    (section,) = [entry["pip"] for entry in conda()["dependencies"] if isinstance(entry, dict)]
    return section


DIRECT = requirements(PROJECT["dependencies"] + [line for extra in EXTRAS.values() for line in extra])
LOCK = pins(lock_lines())


def test_the_lock_holds_nothing_but_exact_versions_in_order() -> None:
    lines = lock_lines()
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    assert lines == sorted(lines, key=lambda line: line.split("==")[0].lower())


@pytest.mark.parametrize("name", DIRECT)
def test_the_pin_of_a_direct_dependency_lies_in_its_range(name: str) -> None:
    assert DIRECT[name].specifier.contains(LOCK[name]), f"{DIRECT[name]} does not admit {LOCK[name]}"


@pytest.mark.parametrize(("name", "version"), [("torch", "2.11.0"), ("torch", "2.13.0"), ("transformers", "5.17.0")])
def test_the_ranges_admit_the_versions_of_the_gpu_image(name: str, version: str) -> None:
    assert DIRECT[name].specifier.contains(version)


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_the_ranges_admit_both_versions_of_python(version: str) -> None:
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)


def test_the_conda_environment_pins_every_direct_dependency_as_the_lock_does() -> None:
    assert pins([line for line in conda_pip_lines() if PIN.fullmatch(line)]) == {name: LOCK[name] for name in DIRECT}


def test_the_conda_environment_takes_the_lock_as_constraint_and_installs_this_folder() -> None:
    assert [line for line in conda_pip_lines() if not PIN.fullmatch(line)] == ["-c requirements.lock", "-e ."]


def test_every_conda_spec_parses_and_its_python_is_one_that_the_project_admits() -> None:
    lines = [entry for entry in conda()["dependencies"] if isinstance(entry, str)]
    specs = {spec.name.normalized: spec for spec in map(rattler.MatchSpec, lines)}
    assert {"python", "pip", "make"} <= specs.keys()
    python = str(specs["python"].version).removesuffix(".*")
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the lock is made on Python 3.11")
def test_everything_that_a_pinned_package_needs_is_pinned_too() -> None:
    """Read from the installed packages: nothing but torch's own CUDA libraries is left for pip to choose."""
    if any(_installed(name) != pin for name, pin in LOCK.items()):
        pytest.skip("the running environment is not the one of the lock")
    needed = {canonicalize_name(need.name) for name in LOCK for need in _needs(name)}
    assert {name for name in needed - LOCK.keys() if not re.match("nvidia-|cuda-|triton", name)} == set()


def _installed(name: str) -> str | None:
    try:
        return Version(metadata.version(name)).public
    except metadata.PackageNotFoundError:
        return None


def _needs(name: str) -> list[Requirement]:
    lines = [Requirement(line) for line in metadata.requires(name) or []]
    return [line for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]


def imported_packages(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module)
    return {name.split(".")[0] for name in names}


USED = {"rmlib": ["offline"], "tools": ["notebooks", "dev"], "benchmarks": ["dev"], "tests": list(EXTRAS)}
PEER = "rewardbench"  # of a script that runs in an environment of its own


@pytest.mark.parametrize(("folder", "extras"), USED.items(), ids=list(USED))
def test_every_package_that_is_imported_is_a_declared_dependency(folder: str, extras: list[str]) -> None:
    declared = requirements(PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]])
    distributions = metadata.packages_distributions()
    ours = {"rmlib", "benchmarks", "tools", PEER} | {path.stem for path in (ROOT / "tests").glob("*.py")}
    foreign = imported_packages(ROOT / folder) - set(sys.stdlib_module_names) - ours
    sources = {name: {canonicalize_name(given) for given in distributions.get(name, [name])} for name in foreign}
    assert {name: given for name, given in sources.items() if not given & declared.keys()} == {}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_make_command_of_the_readme_is_a_target() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"(?:^|`|&& )make ([a-z]+)", text, re.MULTILINE))
    assert {"reproduce", "test", "lab", "figures"} <= named <= make_targets()


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    local = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in local if not (ROOT / link).exists()] == []
    assert len(local) > 5


def test_make_help_explains_every_target() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^  make (\w+) ", shown, re.MULTILINE)) == make_targets()


def test_the_citation_has_what_its_format_requires_and_the_version_of_the_project() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == PROJECT["version"] == rmlib.__version__
    assert citation["license"] == PROJECT["license"] == "Apache-2.0"


def project_files() -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout, so its files cannot be told from others")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


# Written in pieces, so that this file does not hold what it looks for.
FOLDERS = "|".join(["root", "home", "work", "Users", "mnt", "opt", "tmp", "private"])
HOSTS = "|".join(
    rf"{host}\.{domain}" for host, domain in [("pypi", "org"), ("pythonhosted", "org"), ("anaconda", "org")]
)
TRACES = {
    # someone, me and my stand in examples for anybody's folder
    "a folder of one machine": re.compile(rf"(?<![\w.$}})\]>-])/(?:{FOLDERS})/(?!(?:someone|me|my)\b)[\w.]"),
    "a package registry": re.compile(rf"{HOSTS}|--(?:extra-)?index-" + "url|--find-" + "links"),
    "a folder beside the clone": re.compile(r"\.\./" + "shared"),
}


@pytest.mark.parametrize("trace", TRACES)
def test_no_file_names_what_only_one_machine_has(trace: str) -> None:
    found = []
    for path in project_files():
        content = path.read_bytes()
        if b"\0" in content or path.suffix in {".pdf", ".ipynb"}:  # notebooks: see test_notebooks, which knows images
            continue
        for number, line in enumerate(content.decode().splitlines(), start=1):
            if TRACES[trace].search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_the_patterns_do_find_what_they_look_for() -> None:
    for trace, example in zip(
        TRACES, ["see /" + "home/jane/x", "https://pypi" + ".org/simple", ".." + "/shared"], strict=True
    ):
        assert TRACES[trace].search(example)
    assert not TRACES["a folder of one machine"].search("see docs/home/index.html and $HOME/work/x")


# Lines recorded before every setting stood in a record, one bootstrap drew every interval, and a model's name always
# counted the layers of its head. They are read as they are; a run with these data and backbones records them anew.
OLDER_LINES = {
    "helpsteer2-minilm",
    "ukpconvarg1_strict_four-minilm",
}


def test_the_lines_whose_records_are_older_than_the_names_of_today_are_known() -> None:
    settings = TrainSettings().to_dict().keys()
    older = set()
    for file in (ROOT / "data" / "results").glob("*.jsonl"):
        arms = [record for record in map(json.loads, file.read_text().splitlines()) if record["kind"] == "arm"]
        arms = [record for record in arms if "grid" not in record["asked"]]  # which holds what its trials share
        if any(settings - record["asked"]["settings"].keys() for record in arms):
            older.add(file.stem)
    assert older == OLDER_LINES
