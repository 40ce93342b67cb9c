"""Optimise one policy from the shell: `python -m rmlib.alignment run.json`, or by torchrun in several processes.

The file holds `source` (as in `load_splits`), `settings` (`AlignSettings`), `policy` (a hub id or folder of a causal
language model), for REINFORCE and PPO `reward` (a folder of ours, or of any sequence classifier, or a hub id), and
optionally `source_options`, `max_pairs`, `watched` (prompts of the selection split on which reward and divergence are
read) and `every_steps`. Prompts are those of the training pairs, for DPO the pairs themselves.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmlib.alignment import methods
from rmlib.alignment.align import align
from rmlib.alignment.loop import Alignment, Task, Watch
from rmlib.alignment.plan import distinct_prompts
from rmlib.alignment.policies import Policy
from rmlib.alignment.rewards import load_reward
from rmlib.alignment.settings import AlignSettings
from rmlib.sources.splits import load_splits
from rmlib.training.parallel import Processes
from rmlib.training.settings import from_json, outside, refuse


@dataclass(frozen=True)
class Job:
    """What a run file holds. Raises ValueError for what can be seen to fail before anything is read."""

    source: str
    policy: str
    settings: AlignSettings = field(default_factory=AlignSettings)
    reward: str | None = None
    source_options: dict[str, Any] = field(default_factory=dict)
    max_pairs: int = -1
    watched: int = 64
    every_steps: int = 10

    def __post_init__(self) -> None:
        mistakes = [*outside(self, ["every_steps"], "must be positive", lambda value: value > 0)]
        if self.reward is None and self.settings.method != "dpo":
            mistakes.append(f"reward is missing, which a run of {self.settings.method} needs")
        refuse(mistakes)


def run(asked: Mapping[str, Any], *, progress: bool = True) -> Alignment:
    """The optimisation that a run file asks for; raises ValueError with every mistake of the file."""
    job = from_json(Job, asked)
    with Processes.join().main_first():  # what one has read from the source the others find in the cache
        splits = load_splits(job.source, max_pairs=job.max_pairs, **job.source_options)
    reward = None if job.reward is None else load_reward(job.reward)
    watch = None
    if job.watched:
        prompts = distinct_prompts(splits.selection)[: job.watched]
        watch = Watch(prompts, {} if reward is None else {"proxy": reward}, job.every_steps)
    policy = Policy.create(job.policy)
    if job.settings.method == "dpo":
        task = Task(pairs=methods.annotated(splits.train), watch=watch)
    else:
        task = Task(reward, distinct_prompts(splits.train), watch=watch)
    return align(policy, job.settings, task, progress=progress)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the file and say where the policy lies; 1, with the reason, for a file that cannot be run."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        found = run(json.loads(Path(arguments[0]).read_text()))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    processes = Processes.join()
    if processes.is_main:
        print(json.dumps(found.summary))
        print(f"policy: {found.folder / 'policy'}")
    processes.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
