"""Jobs that wait for others: order, errors, interrupts, in one process and in several."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from rmlib.experiments import jobs
from rmlib.experiments.jobs import JobFailed, run_jobs

A_HANG = 900  # seconds after which something is taken to hang, however busy the machine is
FAMILY = {"child": ["parent"], "parent": [], "other": [], "grandchild": ["child", "other"]}


def note(job: str, folder: Path) -> None:
    """Append a line for a job; what several processes do in one call each does not mix."""
    with (folder / "log").open("a") as log:
        log.write(f"{job} {os.getpid()}\n")
    if job == "loud":
        logging.getLogger("rmlib.test").warning("heard from %s", job)
    if job == "bad":
        raise ValueError("no such luck")
    if job == "dead":
        os._exit(7)
    if job == "endless":
        time.sleep(3600)


def noted(folder: Path) -> list[str]:
    file = folder / "log"
    return [line.split()[0] for line in file.read_text().splitlines()] if file.is_file() else []


@pytest.mark.parametrize("processes", [1, 2])
def test_each_job_runs_once_and_after_those_that_it_waits_for(tmp_path: Path, processes: int) -> None:
    run_jobs(FAMILY, partial(note, folder=tmp_path), processes=processes)
    order = noted(tmp_path)
    assert sorted(order) == sorted(FAMILY)
    assert order.index("parent") < order.index("child") < order.index("grandchild")
    assert order.index("other") < order.index("grandchild")
    pids = {line.split()[1] for line in (tmp_path / "log").read_text().splitlines()}
    assert (pids == {str(os.getpid())}) == (processes == 1)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_names_its_job_and_nothing_that_waits_for_it_is_started(tmp_path: Path, processes: int) -> None:
    with pytest.raises(JobFailed, match="job bad: ValueError: no such luck") as caught:
        run_jobs(
            {"first": [], "bad": ["first"], "after": ["bad"]},
            partial(note, folder=tmp_path),
            processes=processes,
            show="job {}".format,
        )
    assert isinstance(caught.value.__cause__, ValueError)
    assert noted(tmp_path) == ["first", "bad"]


def test_a_worker_that_dies_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"dead.*a worker process died.*processes=1"):
        run_jobs({"dead": [], "waits": ["dead"]}, partial(note, folder=tmp_path), processes=2)


def test_what_a_worker_logs_is_heard_here(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_jobs({"loud": [], "quiet": []}, partial(note, folder=tmp_path), processes=2)
    assert [record.getMessage() for record in caplog.records] == ["heard from loud"]


def test_jobs_that_wait_for_each_other_and_no_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cycle"):
        run_jobs({"a": ["b"], "b": ["a"]}, partial(note, folder=tmp_path), processes=1)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        run_jobs({"a": []}, partial(note, folder=tmp_path), processes=0)
    assert noted(tmp_path) == []


def test_by_default_there_is_one_process_a_core_two_at_most_and_one_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for cores, expected in ((1, 1), (2, 2), (64, 2)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert jobs.default_processes() == expected
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert jobs.default_processes() == 1


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_workers_stop_with_the_process_that_started_them(tmp_path: Path, ending: signal.Signals) -> None:
    # A shell without job control has what it runs in the background ignore Ctrl-C, and tests may be run like that.
    script = textwrap.dedent(f"""
        import signal
        from functools import partial
        from pathlib import Path
        from rmlib.experiments.jobs import run_jobs
        from test_jobs import note
        if __name__ == "__main__":
            signal.signal(signal.SIGINT, signal.default_int_handler)
            run_jobs({{"endless": [], "quick": []}}, partial(note, folder=Path({str(tmp_path)!r})), processes=2)
    """)
    (tmp_path / "script.py").write_text(script)
    folders = [str(Path(__file__).parent), str(Path(jobs.__file__).parents[2])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen([sys.executable, str(tmp_path / "script.py")], env=environment, stderr=errors)
    _wait_until(lambda: "endless" in noted(tmp_path))
    endless = next(line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("endless"))
    process.send_signal(ending)
    assert process.wait(timeout=A_HANG) != 0
    _wait_until(lambda: not _alive(int(endless.split()[1])))
    if ending == signal.SIGINT:
        assert "KeyboardInterrupt" in (tmp_path / "errors").read_text()


def _alive(pid: int) -> bool:
    try:
        # A zombie, which nobody has waited for yet, runs no more.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + A_HANG
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)
