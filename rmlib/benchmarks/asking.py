"""Questions to a judge: several at a time, answers in the order of the questions, finished ones kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple

from rmlib.benchmarks.judges import Judge, Messages, Verdict
from rmlib.records.hashing import text_key
from rmlib.records.kept import Kept
from rmlib.records.progress import progress_bar


class Question(NamedTuple):
    """A prompt with its responses in the order in which they are shown; a single one is to be rated."""

    prompt: Messages
    responses: tuple[str, ...]


def ask(
    judge: Judge, questions: Sequence[Question], *, workers: int = 1, keep: bool = True, progress: bool = True
) -> list[Verdict]:
    """The verdict on each question; equal questions are asked once, and those answered earlier not at all.

    `workers` questions are under way at a time, which changes no verdict. A verdict is on the disk as soon as it is
    there, so that an interrupted judging goes on; faults (timeouts, refusals, nonsense) are asked again the next time.
    A judge that has a method `prepare` gets all open questions at once before, so that it can take them in batches.
    """
    identity = judge.identity() if keep else None
    kept = None if identity is None else Kept("verdicts", identity)
    keys = [text_key(question.prompt, *question.responses) for question in questions]
    verdicts = {} if kept is None else {key: Verdict(*kept.known[key]) for key in keys if key in kept.known}
    rest = {key: question for key, question in zip(keys, questions, strict=True) if key not in verdicts}
    if rest and hasattr(judge, "prepare"):
        judge.prepare(list(rest.values()))
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        futures = {pool.submit(_verdict, judge, question): key for key, question in rest.items()}
        bar = progress_bar(total=len(futures), desc="judging", unit="question", show=progress, leave=False)
        for future in as_completed(futures):
            key, verdict = futures[future], future.result()
            verdicts[key] = verdict
            if kept is not None and verdict.finished:
                kept.add({key: list(verdict)})
            bar.update()
        bar.close()
    finally:
        pool.shutdown(cancel_futures=True)  # after a fault or Ctrl-C only what is under way is waited for
    return [verdicts[key] for key in keys]


def _verdict(judge: Judge, question: Question) -> Verdict:
    if len(question.responses) == 1:
        return judge.rate(question.prompt, question.responses[0])
    return judge.compare(question.prompt, question.responses)
