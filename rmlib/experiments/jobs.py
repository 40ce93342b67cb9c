"""Jobs of which some wait for others, one after the other or in several processes with one thread each."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from graphlib import TopologicalSorter
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

from rmlib.records.progress import progress_bar

# What workers run. On Linux one process, which computes nothing and so has no threads, imports it once for all workers
# that are ever started from here, and they are forks of that process. Elsewhere a fork is not safe: each imports anew.
IMPORTED_ONCE = ("rmlib.training.loop", "rmlib.models.reward_model", "rmlib.benchmarks")
START = "forkserver" if sys.platform == "linux" else "spawn"

Job = TypeVar("Job")
_work: Callable[..., None]  # of a worker process, set when it starts


class JobFailed(RuntimeError):
    """A job stopped at an error, which is its cause; the message names the job. What was finished before is kept."""


def default_processes() -> int:
    """One process for each core, two at most; one where there is a GPU, which processes would only share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if torch.cuda.is_available() else min(2, cores)


def run_jobs(
    jobs: Mapping[Job, Collection[Job]],
    work: Callable[[Job], object],
    *,
    processes: int | None = None,
    show: Callable[[Job], str] = str,
) -> None:
    """Call `work` once for each job, after all jobs that it waits for, with one progress bar.

    `jobs`: each with those it waits for. `processes`: None for as many as suit the machine (`default_processes`). With
    several, `work` and the jobs are pickled, each worker has one thread and stops with this process, however that ends;
    a script needs `if __name__ == "__main__"`, a notebook nothing. After an error no job is started, those that run are
    waited for, and JobFailed is raised; an interrupt stops them where they are. Raises ValueError where `processes` is
    not positive, graphlib.CycleError where jobs wait for each other.
    """
    processes = default_processes() if processes is None else processes
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}")
    order: TopologicalSorter[Job] = TopologicalSorter(jobs)
    order.prepare()
    with progress_bar(total=len(jobs), unit="run", leave=False, show=bool(jobs)) as bar:
        if min(processes, len(jobs)) <= 1:
            while order.is_active():
                for job in order.get_ready():
                    bar.set_description(show(job))
                    with _named(show(job)):
                        work(job)
                    order.done(job)
                    bar.update()
            return
        with _workers(min(processes, len(jobs)), work) as pool:
            running: dict[Future[None], Job] = {}
            while order.is_active():
                running |= {pool.submit(_run, job): job for job in order.get_ready()}
                bar.set_description(" | ".join(show(job) for future, job in running.items() if future.running()))
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    with _named(show(running[future])):
                        future.result()
                    order.done(running.pop(future))
                    bar.update()


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        reason = "a worker process died, perhaps for want of memory; give processes=1"
        raise JobFailed(f"{name}, or one beside it: {reason}. What was finished is kept") from error
    except Exception as error:
        raise JobFailed(f"{name}: {type(error).__name__}: {error}") from error


@contextmanager
def _workers(processes: int, work: Callable[[Job], object]) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context(START)  # a fork of this process would copy torch's threads in whatever state
    context.set_forkserver_preload([*IMPORTED_ONCE])
    logs = context.Queue()
    stopped, stop = context.Pipe(duplex=False)
    ended = threading.Event()
    listener = threading.Thread(target=_forward, args=(logs, ended), daemon=True)
    listener.start()
    level = logging.getLogger("rmlib").getEffectiveLevel()
    given = (pickle.dumps(work), dict(os.environ), logs, level, stopped)
    pool = ProcessPoolExecutor(processes, context, _start_worker, given)
    try:
        yield pool
    except JobFailed:
        pool.shutdown(wait=True, cancel_futures=True)  # what runs is finished, and kept
        raise
    except BaseException:
        stop.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        stop.close()
        ended.set()
        listener.join(timeout=5)  # not for ever: a worker that was killed may have left half a message
        logs.close()


def _forward(logs: multiprocessing.Queue, ended: threading.Event) -> None:
    """Give the workers' messages to the loggers of the same names here, where a notebook shows them.

    Unlike QueueListener it needs no last message through the queue, whose lock a worker that was killed may hold.
    """
    while True:
        try:
            record = logs.get(timeout=0.1)
        except queue.Empty:
            if ended.is_set():
                return
            continue
        logging.getLogger(record.name).handle(record)


def _start_worker(
    work: bytes, environment: dict[str, str], logs: multiprocessing.Queue, level: int, stopped: Connection
) -> None:
    global _work
    os.environ.clear()  # a fork has the variables of the time when the first worker was started
    os.environ.update(environment)
    # Ctrl-C reaches the whole group; the process that the user sees decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, args=(stopped,), daemon=True).start()
    logging.getLogger().addHandler(QueueHandler(logs))
    logging.getLogger("rmlib").setLevel(level)
    torch.set_num_threads(1)
    gc.disable()  # importing makes objects that stay: looking for dead ones among them takes a second
    _work = pickle.loads(work)
    gc.enable()


def _die_with_parent(stopped: Connection) -> None:
    """Ends the process as soon as the other end is closed: on an interrupt, or because the parent is gone."""
    stopped.poll(None)
    os._exit(1)


def _run(job: Job) -> None:
    _work(job)
