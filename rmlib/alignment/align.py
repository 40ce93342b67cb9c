"""Optimise a policy by REINFORCE, PPO or DPO, or find the run that did: one call, named by all that it depends on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rmlib.alignment.loop import BEST_FOLDER, POLICY_FOLDER, Alignment, Task, optimise
from rmlib.alignment.methods import DPO, PPO, Reinforce
from rmlib.alignment.policies import Policy
from rmlib.alignment.settings import AlignSettings
from rmlib.records import paths
from rmlib.records.files import write_json
from rmlib.records.hashing import fingerprint
from rmlib.training import checkpoints
from rmlib.training.parallel import Processes
from rmlib.training.runs import FINISHED_FILE, LOG_FILE, claim, read_log


def align(policy: Policy, settings: AlignSettings, task: Task, *, progress: bool = True) -> Alignment:
    """Optimise a copy of `policy`, which is left as it is and serves as the reference; return the run.

    Asked for again, the run is returned as it is; one that was interrupted goes on from its last checkpoint. Of several
    processes (torchrun, accelerate launch) each calls this and takes its share of every step: DPO then takes the same
    steps as alone, the other two draw other samples, and have another name. Raises AlignmentError for parts that are
    missing or do not fit, rewards that are no numbers, and a gradient that is not finite.
    """
    processes = Processes.join()
    identity = fingerprint("align", policy.identity, settings.to_dict(), *task.identity)
    if processes.size > 1 and settings.method != "dpo":
        identity = fingerprint(identity, processes.size)
    run = Alignment(paths.runs_dir() / "alignment" / identity, settings)
    processes.on_main(lambda: claim(run.folder, settings.to_dict(), identity))
    if not processes.on_main(lambda: run.is_finished):
        for part in (policy.network, *getattr(task.reward, "members", [task.reward])):
            if hasattr(part, "to"):
                part.to(processes.device)
        if settings.method == "ppo":
            _ppo_rounds(policy, task, run, processes, progress)
        else:
            made = DPO if settings.method == "dpo" else Reinforce
            learner = made(policy, settings, task, processes)
            optimise(learner, run.folder, task.watch, policy, progress=progress)
    processes.on_main(lambda: checkpoints.remove(run.folder))  # those of a run that was killed after its mark go too
    return run


def _ppo_rounds(policy: Policy, task: Task, run: Alignment, processes: Processes, progress: bool) -> None:
    """Each round starts from the best policy of the one before, which is its reference too, with a new value model."""
    start, settings = policy, run.settings
    folders = [run.folder / f"round-{number + 1}" for number in range(settings.rounds)]
    for number, own in enumerate(folders):
        processes.on_main(partial(own.mkdir, exist_ok=True))
        if not processes.on_main((own / FINISHED_FILE).is_file):
            learner = PPO(start, settings.change(seed=settings.seed + 1000 * number), task, processes)
            label = f"ppo, round {number + 1}"
            optimise(learner, own, task.watch, policy, progress=progress, label=label)
        processes.on_main(partial(checkpoints.remove, own))
        start = Policy.create(str(own / (BEST_FOLDER if (own / BEST_FOLDER).is_dir() else POLICY_FOLDER)))
        start.network.to(policy.device)
    processes.on_main(lambda: _write_rounds(folders, run.folder, settings.n_steps))


def _write_rounds(folders: Sequence[Path], folder: Path, n_steps: int) -> None:
    """The logs of all rounds as one, with steps that go on from round to round, and the policies of the last.

    A later round starts at the best policy of the one before, which was measured there.
    """
    rows = [
        row | {"round": number + 1, "step": row["step"] + number * n_steps}
        for number, own in enumerate(folders)
        for row in read_log(own)
        if row["step"] or not number
    ]
    with (folder / LOG_FILE).open("w") as log:
        log.writelines(json.dumps(row) + "\n" for row in rows)
    for name in (POLICY_FOLDER, BEST_FOLDER):
        if (folders[-1] / name).is_dir():
            shutil.copytree(folders[-1] / name, folder / name, dirs_exist_ok=True)
    write_json(folder / FINISHED_FILE, {k: v for k, v in rows[-1].items() if k != "watched"})
