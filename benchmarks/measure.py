"""What every script of this folder shares: time and peak memory of a function in a process of its own, and a record.

A script alternates what it compares in one run, so that a ratio is never taken between two states of the machine.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from rmlib import records
from rmlib.records import paths


@dataclass(frozen=True)
class Measured:
    """What a function returned, its wall time, and the peak resident memory of its process, imports included."""

    result: Any
    seconds: float
    peak_mb: float


def measure(function: Callable[..., Any], *arguments: Any) -> Measured:
    """Run a module-level function in a fresh process. RuntimeError where it fails; its traceback is printed there."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        measured: Measured = receiver.recv()
    except EOFError:
        raise RuntimeError(f"{function.__name__} failed: see the error above") from None
    finally:
        process.join()
    return measured


@dataclass(frozen=True)
class Timed:
    """Wall time and CPU time (all threads, user and system) of a call, and the share of the cores others used."""

    seconds: float
    cpu_seconds: float
    others: float


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Timed]:
    """Call a function in this process; `others` is 0..1, of all cores, from /proc/stat."""
    start = now()
    result = function(*arguments)
    return result, between(start, now())


def now() -> tuple[float, float, float]:
    """Wall clock, CPU seconds of this process, busy seconds of all cores; what a GPU has been given is done first."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time(), busy_seconds()


def between(start: tuple[float, float, float], end: tuple[float, float, float]) -> Timed:
    """What passed from one `now` to another."""
    seconds, cpu_seconds, busy = (later - earlier for earlier, later in zip(start, end, strict=True))
    return Timed(seconds, cpu_seconds, max(0.0, busy - cpu_seconds) / (seconds * (os.cpu_count() or 1)))


def busy_seconds() -> float:
    """Seconds for which the cores worked since the machine started, of all processes."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def record(name: str, asked: Mapping[str, Any], outcome: Mapping[str, Any], seconds: float) -> None:
    """Append what a script measured to data/results/benchmarks/<name>.jsonl."""
    file = paths.results_dir() / "benchmarks" / f"{name}.jsonl"
    records.append(file, kind="benchmark", asked={"benchmark": name, **asked}, outcome=outcome, seconds=seconds)


def _run(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    start = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - start
    sender.send(Measured(result, seconds, peak_mb()))


def peak_mb() -> float:
    """Peak resident memory of this process."""
    # Not ru_maxrss: on Linux a started process inherits its parent's, so a large parent would hide a small child.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024
