"""Kill a training run at random places, start the same run again, and compare it with one that nobody killed.

    python -m benchmarks.faults                  # 50 places in one process, 3 with two processes
    python -m benchmarks.faults --places 5 --pairs-of-processes 0 --no-record

A run kills itself (SIGKILL) before a chosen line of this library, drawn from the lines that an undisturbed run goes
through: inside the writing of a checkpoint, in the last step of an epoch, while the result is written, in any other
step; or the clock kills it, wherever it is, inside torch or the system too. One process has to come to the same bits:
every row of the log but its seconds, every file of the model. Two processes have to come to the same losses.
"""

import argparse
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.measure import record
from rmlib.pairs import make_pairs
from rmlib.sources import simulated
from rmlib.training import train
from rmlib.training.checkpoints import UNFINISHED
from rmlib.training.runs import initial, read_log
from rmlib.training.settings import TrainSettings

PAIRS, SELECTION, PAIRS_PER_STEP = 20, 6, 4
# Adapters with dropout: the generators, too, have to come back as they were.
SETTINGS = TrainSettings(
    pairs_per_step=PAIRS_PER_STEP,
    epochs=3,
    token_budget=1024,
    lora_rank=4,
    lora_dropout=0.1,
    schedule="cosine",
    warmup_steps=2,
    evaluate_every_steps=4,
    checkpoint_every_steps=3,
)
STEPS_AN_EPOCH = PAIRS // PAIRS_PER_STEP
# What a chosen line can be part of, and of how many kills in ten.
KINDS = {"checkpoint": 3, "epoch end": 2, "result": 1, "step": 2, "clock": 2}
FOLDER = Path(__file__).resolve().parents[1]
TRACED = (FOLDER / "rmlib" / "training", FOLDER / "rmlib" / "records")


@cache
def _is_traced(file: str) -> bool:
    """Whether the lines of a file count; asked at every call of a function, most of which torch makes."""
    return Path(file).parent in TRACED


@dataclass(frozen=True)
class Kill:
    """Where a run is killed: before the line of that number, or, by the clock, after a share of its time."""

    kind: str
    at: float


class Lines:
    """A trace function that gives each line of training or writing a kind, and kills the process before one of them."""

    def __init__(self, last: int | None = None) -> None:
        self.kinds: list[str] = []
        self._last, self._step, self._within = last, 0, ["step"]

    def __call__(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        return self._enter(frame) if _is_traced(frame.f_code.co_filename) else None

    def _enter(self, frame: FrameType) -> Callable[..., Any]:
        entered = {("checkpoints", "write"): "checkpoint", ("loop", "_finish"): "result"}
        name = (Path(frame.f_code.co_filename).stem, frame.f_code.co_name)
        kind = entered.get(name)
        if name == ("loop", "_train_step"):
            self._step += 1
            kind = "step" if self._step % STEPS_AN_EPOCH else "epoch end"
        if kind:
            self._within.append(kind)

        def line(_: FrameType, event: str, __: Any) -> Callable[..., Any]:
            if event == "line":
                self._count()
            elif event == "return" and kind:
                self._within.pop()
            return line

        return line

    def _count(self) -> None:
        if len(self.kinds) == self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.kinds.append(self._within[-1])


# What a run imports late. Done in each fork, and traced there, it takes several times as long as the run itself.
LATE_IMPORTS = ("peft", "torch._dynamo", "torch.utils.tensorboard", "transformers.models.llama.modeling_llama")


def train_once(folder: Path, lines: Lines | None = None) -> None:
    """The run that is killed: the same call each time."""
    torch.set_num_threads(1)
    decided = [row for row in simulated.generate(2 * (PAIRS + SELECTION), seed=0) if row["preference"]]
    table = make_pairs(decided, origin="generated")
    pairs, selection = table.select(range(PAIRS)), table.select(range(PAIRS, PAIRS + SELECTION))
    sys.settrace(lines)
    try:
        train(initial(SETTINGS), pairs, SETTINGS, selection=selection, folder=folder, progress=False)
    finally:
        sys.settrace(None)


def in_fork(work: Callable[[], Any], seconds: float | None = None) -> tuple[int, Any]:
    """Exit code of a child that does the work, and what came of it; the child is killed after some seconds, if given.

    A fork, which need not import everything again: this process computes nothing, so there is no thread to lose.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work))
    process.start()
    sender.close()
    if seconds is not None:
        process.join(seconds)
        process.kill()
    try:
        result = receiver.recv()
    except EOFError:
        result = None
    process.join()
    assert process.exitcode is not None
    return process.exitcode, result


def _send(sender: Connection, work: Callable[[], Any]) -> None:
    sender.send(work())


def kinds_of_lines(folder: Path) -> list[str]:
    """The kind of every line that an undisturbed run goes through."""
    lines = Lines()
    train_once(folder, lines)
    return lines.kinds


def choose(kinds: list[str], n: int, rng: random.Random) -> list[Kill]:
    """`n` places, of each kind its share, at least one of each where there are five or more."""
    wanted = [kind for kind, share in KINDS.items() for _ in range(share)]
    order = [*KINDS, *(wanted[index % len(wanted)] for index in range(n))][:n] if n < 10 else (wanted * n)[:n]
    numbers = {kind: [index for index, found in enumerate(kinds) if found == kind] for kind in KINDS}
    return [Kill(kind, rng.uniform(0.05, 0.95) if kind == "clock" else rng.choice(numbers[kind])) for kind in order]


def outcome_of(folder: Path) -> dict[str, Any]:
    """Everything that has to be equal: log but for times, files of the model, and that nothing else is left."""
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in read_log(folder)]
    files = {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((folder / "model").rglob("*"))
        if file.is_file()
    }
    left = sorted(path.name for path in folder.glob("*checkpoint-*"))
    return {"rows": rows, "files": files, "left": left, "finished": (folder / "finished.json").is_file()}


def kill_and_resume(kill: Kill, folder: Path, whole: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Whether the run was killed, how far it had come, and whether it came to the same end."""
    if kill.kind == "clock":
        code, _ = in_fork(lambda: train_once(folder), seconds * kill.at)
    else:
        code, _ = in_fork(lambda: train_once(folder, Lines(int(kill.at))))
    rows = read_log(folder)
    unfinished = list(folder.glob(UNFINISHED))
    again, _ = in_fork(lambda: train_once(folder))
    return {
        "kind": kill.kind,
        "killed": code == -signal.SIGKILL,
        "rows_written": len(rows),
        "half_a_checkpoint": bool(unfinished),
        "same": again == 0 and outcome_of(folder) == whole,
    }


def one_process(n_places: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    """`n_places` kills, each of a run of its own."""
    rng = random.Random(seed)
    for name in LATE_IMPORTS:
        importlib.import_module(name)
    start = time.perf_counter()
    assert in_fork(lambda: train_once(folder / "whole"))[0] == 0, "the undisturbed run failed: see the error above"
    seconds, whole = time.perf_counter() - start, outcome_of(folder / "whole")
    _, kinds = in_fork(lambda: kinds_of_lines(folder / "lines"))
    found = []
    for number, kill in enumerate(choose(kinds, n_places, rng)):
        found.append(kill_and_resume(kill, folder / str(number), whole, seconds))
        print(f"{number + 1:3d} of {n_places}  {found[-1]}", flush=True)
    return found


def two_processes(n_places: int, seed: int, folder: Path) -> list[float]:
    """Largest difference of losses from a whole run's, of runs of two processes killed at a random row of their log."""
    rng = random.Random(seed)
    rows = _launched(folder / "whole", None)
    differences = []
    for number in range(n_places):
        place = folder / f"two-{number}"
        after = rng.randrange(1, len(rows) - 1)
        _launched(place, after)
        again = _launched(place, None)
        same_steps = [row["step"] for row in rows] == [row["step"] for row in again]
        gaps = [abs(one["loss"] - other["loss"]) for one, other in zip(rows, again, strict=same_steps)]
        differences.append(max(gaps) if same_steps else float("nan"))
        print(f"two processes, killed after step {after}: losses differ by {differences[-1]:.2g}", flush=True)
    return differences


def _launched(folder: Path, kill_after: int | None) -> list[dict[str, Any]]:
    """The log of a run of two processes, all of them killed once it has a number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    job = {"source": "simulated", "settings": SETTINGS.to_dict() | {"max_steps": 15, "epochs": 1.0}, "processes": 2}
    (folder / "run.json").write_text(json.dumps(job | {"folder": str(folder / "run")}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen([*command, "-m", "rmlib.training", str(folder / "run.json")], env=environment)
    while kill_after is not None and process.poll() is None and len(read_log(folder / "run")) < kill_after:
        time.sleep(0.05)
    if kill_after is not None:
        for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            child.kill()
    if process.wait() and kill_after is None:
        raise RuntimeError("the run of two processes failed: see the error above")
    return read_log(folder / "run")


def main() -> int:
    """Kill, compare, print, record; the exit code is the number of runs that came to another end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=50, help="kills of one process (default: 50)")
    parser.add_argument("--pairs-of-processes", type=int, default=3, help="kills of two processes (default: 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = one_process(options.places, options.seed, Path(folder))
        n_both = options.pairs_of_processes
        both = two_processes(n_both, options.seed, Path(folder)) if n_both else []
    wrong = sum(not case["same"] for case in found) + sum(not difference <= 1e-5 for difference in both)
    outcome = {
        "kills": sum(case["killed"] for case in found),
        "kills_by_kind": dict(Counter(case["kind"] for case in found if case["killed"])),
        "left_half_a_checkpoint": sum(case["half_a_checkpoint"] for case in found),
        "same_bits": sum(case["same"] for case in found),
        "steps_done_when_killed": np.percentile([case["rows_written"] for case in found], [0, 50, 100]).tolist(),
        "two_processes_largest_loss_difference": both,
    }
    print(json.dumps(outcome, indent=1))
    if not options.no_record:
        asked = {"places": options.places, "pairs_of_processes": options.pairs_of_processes, "seed": options.seed}
        record("faults", asked | {"settings": SETTINGS.to_dict()}, outcome, time.perf_counter() - start)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
