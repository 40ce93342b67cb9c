"""Runs that are killed, disks that are full, checkpoints that are damaged: what was lost, and that it is said."""

import json
import logging
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from test_training import made_pairs, settings

from rmlib.models import RewardModel
from rmlib.training import train
from rmlib.training.loop import _Loop
from rmlib.training.runs import DiskError, Run, TrainingError, held, initial

REPOSITORY = Path(__file__).resolve().parents[1]


pytestmark = pytest.mark.usefixtures("own_runs")


def run(backbone: str, folder: Path, **changes: object) -> Run:
    wanted = settings(backbone, epochs=3, checkpoint_every_steps=3, **changes)  # 12 steps
    return train(RewardModel.create(backbone), made_pairs(16), wanted, folder=folder, progress=False)


@contextmanager
def stopped_after(step: int) -> Iterator[None]:
    """Training ends after so many steps as if the machine had."""
    honest = _Loop._train_step

    def dies(loop: _Loop, order: np.ndarray) -> dict[str, float]:
        if loop.step == step:
            raise KeyboardInterrupt
        return honest(loop, order)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(_Loop, "_train_step", dies)
        yield


@contextmanager
def full_disk(free_bytes: int) -> Iterator[None]:
    """No file grows beyond so many bytes: writes fail as on a full disk, in Python, torch and safetensors alike."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_runs_killed_at_five_places_come_to_the_same_bits(tmp_path: Path) -> None:
    # Before a line in the writing of a checkpoint, at an epoch's end, while the result is written, in a step; by clock.
    command = [sys.executable, "-m", "benchmarks.faults", "--places", "5", "--pairs-of-processes", "0", "--no-record"]
    environment = os.environ | {"RMLIB_RUNS": str(tmp_path), "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    outcome = json.loads(done.stdout[done.stdout.index("\n{") :])
    # The clock may come too late; whoever stands before a line of the run does not.
    assert outcome["kills"] >= 4 and outcome["same_bits"] == 5


@pytest.mark.parametrize("damage", ["cut short", "a byte changed", "a file lost", "no manifest"])
def test_of_a_damaged_newest_checkpoint_the_older_one_is_taken_and_that_is_said(
    backbone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    whole = run(backbone, tmp_path / "whole")
    with stopped_after(8):
        run(backbone, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoint-000006"
    weights = newest / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "cut short":
        weights.write_bytes(content[:-100])
    elif damage == "a byte changed":
        content[-50] ^= 1
        weights.write_bytes(content)
    else:
        (weights if damage == "a file lost" else newest / "manifest.json").unlink()
    with caplog.at_level(logging.INFO):
        resumed = run(backbone, tmp_path / "run")
    assert "checkpoint-000006 is damaged" in caplog.text and "continuing run at step 3" in caplog.text
    assert resumed.history["loss"].tolist() == whole.history["loss"].tolist()


def test_with_no_whole_checkpoint_left_the_run_starts_anew_and_says_why(
    backbone: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with stopped_after(4):
        run(backbone, tmp_path / "run")
    (tmp_path / "run" / "checkpoint-000003" / "state.pt").write_bytes(b"")
    assert run(backbone, tmp_path / "run").history["step"].tolist() == list(range(1, 13))
    assert "state.pt is not as it was written" in caplog.text


@pytest.mark.parametrize("free_bytes", [0, 700, 30_000])  # not even the log; a few rows; half of a checkpoint
def test_a_full_disk_is_a_named_error_and_with_room_the_run_comes_to_the_same_bits(
    backbone: str, tmp_path: Path, free_bytes: int
) -> None:
    whole = run(backbone, tmp_path / "whole")
    with stopped_after(4):
        run(backbone, tmp_path / "run")
    said = "could not be written .*make room, and start the same run again"
    with pytest.raises(DiskError, match=said), full_disk(free_bytes):
        run(backbone, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint-000003" / "manifest.json").is_file()
    assert not list((tmp_path / "run").glob(".*"))
    resumed = run(backbone, tmp_path / "run")
    assert resumed.history["loss"].tolist() == whole.history["loss"].tolist()


def test_a_changed_setting_is_refused_in_the_folder_of_a_run_that_was_stopped(backbone: str, tmp_path: Path) -> None:
    with stopped_after(4):
        run(backbone, tmp_path / "run")
    with pytest.raises(TrainingError, match="settings, data or initial model differ"):
        run(backbone, tmp_path / "run", learning_rate=1e-4)


def test_two_checkpoints_are_kept_and_none_of_a_finished_run(backbone: str, tmp_path: Path) -> None:
    with stopped_after(11):
        run(backbone, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {"checkpoint-000006", "checkpoint-000009"}
    run(backbone, tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoint-*"))


def test_a_log_that_ends_in_half_a_row_is_mended(backbone: str, tmp_path: Path) -> None:
    with stopped_after(5):
        run(backbone, tmp_path / "run")
    with (tmp_path / "run" / "log.jsonl").open("a") as log:
        log.write('{"step": 6, "lo')
    assert run(backbone, tmp_path / "run").history["step"].tolist() == list(range(1, 13))


def test_dropout_goes_on_where_it_was(backbone: str, tmp_path: Path) -> None:
    adapted = {"lora_rank": 4, "lora_dropout": 0.3, "learning_rate": 1e-2}

    def trained(folder: str) -> Run:
        wanted = settings(backbone, checkpoint_every_steps=3, **adapted)
        return train(initial(wanted), made_pairs(16), wanted, folder=tmp_path / folder, progress=False)

    whole = trained("whole")
    with stopped_after(5):
        trained("run")
    assert trained("run").history["loss"].tolist() == whole.history["loss"].tolist()


def _hold(folder: Path, ready: "multiprocessing.synchronize.Event", end: "multiprocessing.synchronize.Event") -> None:
    with held(folder):
        ready.set()
        end.wait(60)


def test_a_folder_in_which_another_process_trains_is_refused_until_that_ends(backbone: str, tmp_path: Path) -> None:
    with stopped_after(4):
        run(backbone, tmp_path / "run")
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "run", ready, end))
    other.start()
    assert ready.wait(60)
    with pytest.raises(TrainingError, match="another process is training in run"):
        run(backbone, tmp_path / "run")
    other.kill()  # a dead process holds nothing
    other.join()
    assert run(backbone, tmp_path / "run").is_finished
    shutil.rmtree(tmp_path / "run")
