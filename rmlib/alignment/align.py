"""Optimise a policy by REINFORCE, PPO or DPO, or find the run that did: one call, named by all that it depends on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from rmlib.alignment.dpo import DPO, PreferencePairs
from rmlib.alignment.loop import BEST_FOLDER, POLICY_FOLDER, Alignment, Learner, Watch, optimise
from rmlib.alignment.policies import Policy, Reference
from rmlib.alignment.ppo import PPO
from rmlib.alignment.reinforce import Reinforce
from rmlib.alignment.rewards import AlignmentError, reward_identity
from rmlib.alignment.settings import AlignSettings
from rmlib.models import Prompt, RewardModel, Scorer
from rmlib.records import paths
from rmlib.records.files import write_json
from rmlib.records.hashing import fingerprint, prompt_key
from rmlib.training.parallel import Processes
from rmlib.training.runs import FINISHED_FILE, LOG_FILE, claim, read_log


def align(
    policy: Policy,
    settings: AlignSettings,
    *,
    reward: Scorer | None = None,
    prompts: Sequence[Prompt] = (),
    pairs: PreferencePairs | None = None,
    critic: RewardModel | None = None,
    watch: Watch | None = None,
    progress: bool = True,
) -> Alignment:
    """Optimise a copy of `policy`, which is left as it is and serves as the reference; return the run.

    REINFORCE and PPO need a `reward` and `prompts`; PPO a `critic` too, where the reward is not itself a RewardModel
    with the policy's tokens; DPO needs `pairs`. Asked for again, the run is returned as it is; one that was interrupted
    goes on from its last checkpoint. Of several processes (torchrun, accelerate launch) each calls this and takes its
    share of every step: DPO then takes the same steps as alone, the other two draw other samples, and have another
    name. Raises AlignmentError for parts that do not fit, rewards that are no numbers, and a gradient that is not
    finite.
    """
    processes = Processes.join()
    keys = [prompt_key(prompt) for prompt in prompts]
    rewarded = None if reward is None else reward_identity(reward)
    valued, learnt, measured = (None if one is None else one.identity for one in (critic, pairs, watch))
    identity = fingerprint("align", policy.identity, settings.to_dict(), [rewarded, valued], keys, learnt, measured)
    if processes.size > 1 and settings.method != "dpo":
        identity = fingerprint(identity, processes.size)
    run = Alignment(paths.runs_dir() / "alignment" / identity, settings)
    if processes.on_main(lambda: run.is_finished):
        return run
    processes.on_main(lambda: claim(run.folder, settings.to_dict(), identity))
    _to_device(policy, reward, processes.device)
    if settings.method == "dpo":
        if pairs is None:
            raise AlignmentError("DPO learns from pairs: give some (dpo.annotated, dpo.labelled)")
        learner: Learner = DPO(policy, pairs, settings, processes)
    elif reward is None:
        raise AlignmentError(f"{settings.method} needs a reward: a model, an ensemble, or rewards.load_reward(folder)")
    elif settings.method == "reinforce":
        learner = Reinforce(policy, reward, prompts, settings, processes)
    else:
        made = partial(PPO, reward=reward, prompts=prompts, critic=_critic(reward, critic), processes=processes)
        _ppo_rounds(policy, made, run, processes, watch, progress)
        return run
    optimise(learner, run.folder, watch, Reference(policy, policy), progress=progress)
    return run


def _to_device(policy: Policy, reward: Scorer | None, device: torch.device) -> None:
    policy.network.to(device)
    for member in getattr(reward, "members", [reward]):
        if hasattr(member, "to"):
            member.to(device)


def _critic(reward: Scorer, critic: RewardModel | None) -> RewardModel:
    chosen = critic or reward
    if not isinstance(chosen, RewardModel):
        raise AlignmentError(
            f"PPO's value model starts as a RewardModel, the reward is a {type(reward).__name__}: give critic"
        )
    return chosen


def _ppo_rounds(
    policy: Policy, made: Callable[..., PPO], run: Alignment, processes: Processes, watch: Watch | None, progress: bool
) -> None:
    """Each round starts from the best policy of the one before, which is its reference too, with a new value model."""
    start, settings = policy, run.settings
    folders = [run.folder / f"round-{number + 1}" for number in range(settings.rounds)]
    for number, own in enumerate(folders):
        processes.on_main(partial(own.mkdir, exist_ok=True))
        if not processes.on_main((own / FINISHED_FILE).is_file):
            learner = made(start, settings=settings.change(seed=settings.seed + 1000 * number))
            label = f"ppo, round {number + 1}"
            optimise(learner, own, watch, Reference(start, policy), progress=progress, label=label)
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
