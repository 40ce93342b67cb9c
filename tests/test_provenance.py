"""What a result came from: a commit that is the clone's own, and a command without a folder of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rmlib.records import paths
from rmlib.records.provenance import PACKAGES, provenance, typed_command


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "clone"
    (folder / "data" / "results").mkdir(parents=True)
    (folder / "figures").mkdir()
    (folder / "code.py").write_text("1\n")
    _git(folder, "init", "--quiet")
    monkeypatch.setattr(paths, "root", lambda: folder)
    return folder


def test_the_commit_is_that_of_the_clone_and_dirty_only_where_more_than_results_changed(clone):
    assert provenance()["commit"] == "unknown"  # no commit yet
    _git(clone, "add", ".")
    _git(clone, "commit", "--quiet", "-m", "one")
    head = _git(clone, "rev-parse", "HEAD").strip()
    assert provenance()["commit"] == head and len(head) == 40
    (clone / "data" / "results" / "new.jsonl").write_text("{}\n")
    (clone / "figures" / "new.png").write_text("")
    assert provenance()["commit"] == head
    (clone / "code.py").write_text("2\n")
    assert provenance()["commit"] == f"{head}-dirty"


def test_code_inside_another_repository_does_not_take_that_ones_commit(clone, monkeypatch):
    _git(clone, "add", ".")
    _git(clone, "commit", "--quiet", "-m", "one")
    monkeypatch.setattr(paths, "root", lambda: clone / "data")
    assert provenance()["commit"] == "unknown"


def test_without_git_the_commit_is_unknown(clone, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance()["commit"] == "unknown"


def test_the_command_names_no_folder_of_this_machine(monkeypatch):
    monkeypatch.delenv("RMLIB_COMMAND", raising=False)
    arguments = [
        "/home/me/clone/rmlib/training.py",
        "--data=/mnt/my data/helpsteer2",
        "../x/run.json",
        "--rate",
        "1e-6",
    ]
    monkeypatch.setattr(sys, "argv", [*arguments, "org/model"])
    assert provenance()["command"] == "training.py --data=helpsteer2 run.json --rate 1e-6 org/model"


def test_a_notebook_is_named_by_the_command_that_runs_it(monkeypatch):
    monkeypatch.delenv("RMLIB_COMMAND", raising=False)
    monkeypatch.setattr(sys, "argv", ["/env/ipykernel_launcher.py", "-f", "/run/kernel-1234.json"])
    assert provenance()["command"] == "notebook"
    monkeypatch.setenv("RMLIB_COMMAND", "make reproduce DATA=$DATA")
    assert provenance()["command"] == "make reproduce DATA=$DATA"


def test_hardware_and_packages_are_named():
    about = provenance()
    assert about["hardware"]["cores"] == os.cpu_count() and about["hardware"]["cpu"]
    assert set(about["packages"]) == {"python", *PACKAGES}


def test_what_one_machine_alone_has_becomes_a_variable_of_the_command() -> None:
    arguments = ["score", "own", "--source", "x/p.jsonl", "--model", "the longer", "--out=y.jsonl", "--partial"]
    typed = typed_command("python -m rmlib.benchmarks", arguments, ("source", "out"))
    assert typed == "python -m rmlib.benchmarks score own --source $SOURCE --model 'the longer' --out=$OUT --partial"
    assert typed_command("run", ["--source", "hub"], ("source",)) == "run --source hub"
