"""Optimise one policy from the shell: `python -m rmlib.alignment run.json`, or by torchrun in several processes.

The file holds `source` (as in `load_splits`), `settings` (`AlignSettings`), `policy` (a hub id or folder of a causal
language model), for REINFORCE and PPO `reward` (a folder of ours, or of any sequence classifier, or a hub id), and
optionally `max_pairs`, `watched` (prompts of the selection split on which reward and divergence are read) and
`every_steps`. Prompts are those of the training pairs, for DPO the pairs themselves.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
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

KEYS = {"source", "settings", "policy", "reward", "max_pairs", "watched", "every_steps"}


def run(asked: Mapping[str, Any], *, progress: bool = True) -> Alignment:
    """The optimisation that a run file asks for; raises ValueError for an unknown key or one that is missing."""
    if unknown := asked.keys() - KEYS:
        raise ValueError(f"unknown keys {sorted(unknown)}; known: {', '.join(sorted(KEYS))}")
    settings = AlignSettings.from_dict(asked.get("settings", {}))
    needed = {"source", "policy"} | ({"reward"} if settings.method != "dpo" else set())
    if missing := needed - asked.keys():
        raise ValueError(f"a run of {settings.method} needs the keys {', '.join(sorted(missing))}")
    with Processes.join().main_first():  # what one has read from the source the others find in the cache
        splits = load_splits(asked["source"], max_pairs=asked.get("max_pairs", -1))
    reward = load_reward(asked["reward"]) if "reward" in asked else None
    watch = None
    if n_watched := asked.get("watched", 64):
        prompts = distinct_prompts(splits.selection)[:n_watched]
        watch = Watch(prompts, {} if reward is None else {"proxy": reward}, asked.get("every_steps", 10))
    policy = Policy.create(asked["policy"])
    if settings.method == "dpo":
        task = Task(pairs=methods.annotated(splits.train), watch=watch)
    else:
        task = Task(reward, distinct_prompts(splits.train), watch=watch)
    return align(policy, settings, task, progress=progress)


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
        print(f"error: {error}", file=sys.stderr)
        return 1
    processes = Processes.join()
    if processes.is_main:
        print(json.dumps(found.summary))
        print(f"policy: {found.folder / 'policy'}")
    processes.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
