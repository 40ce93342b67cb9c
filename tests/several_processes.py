"""What each of the two processes does that `test_parallel.py` starts: it trains small runs.

The runs land in a folder, where the test has put two backbones, and compares them with those of one process.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from rmlib.pairs import ATTRIBUTES, make_pairs
from rmlib.training import Run, TrainingError, train
from rmlib.training.loop import _Loop
from rmlib.training.parallel import Processes, ProcessesError
from rmlib.training.runs import initial
from rmlib.training.settings import TrainSettings

KILLED_AFTER = 12
COMMON = {"pairs_per_step": 5, "token_budget": 150, "warmup_steps": 2, "max_steps": 20, "learning_rate": 2e-6}
# Of 13 pairs of unequal length, 5 a step: passes of unequal number, and steps that reach over the end of an epoch.
RUNS: dict[str, dict[str, object]] = {
    "replicated": {"loss": "regression", "evaluate_every_steps": 5, "checkpoint_every_steps": 5},
    "one pair a step": {"pairs_per_step": 1},
    "sharded": {"sharding": "full", "evaluate_every_steps": 5, "checkpoint_every_steps": 5},
    "sharded adapters": {"sharding": "full", "lora_rank": 4, "activation_checkpointing": True, "max_steps": 6},
    "sharded bf16": {"sharding": "full", "precision": "bf16", "max_steps": 4},
    "kept features": {"trainable": "head", "learning_rate": 1e-3, "max_steps": 6},
    "encoder": {"max_steps": 4},
}
KILLED = ("replicated", "sharded")


def pairs() -> Dataset:
    """Pairs of unequal length, some without a rating."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(13):
        good = rng.permutation(5)[:2]
        ratings = [dict.fromkeys(ATTRIBUTES, float(value)) for value in good]
        row = {
            "split": "train",
            "prompt": [{"role": "user", "content": "question " * int(rng.integers(1, 4)) + str(index)}],
            "response_1": "good " * int(good[0]) + "bad",
            "response_2": "good " * int(good[1]) + "bad",
            "ratings_1": None if index in (2, 5) else ratings[0],
            "ratings_2": ratings[1],
            "preference": int(np.clip(good[1] - good[0], -3, 3)),
        }
        rows.append(row)
    return make_pairs(rows, origin="made")


def settings_of(name: str, folder: Path) -> TrainSettings:
    """The settings of one of RUNS, on a tiny backbone in the folder."""
    kind = "bert" if name == "encoder" else "llama"
    return TrainSettings(**(COMMON | {"backbone": str(folder / kind)} | RUNS[name]))  # type: ignore[arg-type]


def run(name: str, folder: Path, settings: TrainSettings, target: Path) -> Run:
    """Train one of RUNS from the same weights on the same pairs."""
    return train(initial(settings), pairs(), settings, selection=pairs(), folder=target, progress=False)


def killed_run(name: str, folder: Path) -> None:
    """The same, stopped in the middle of everything after some steps, as a machine stops."""
    honest = _Loop._train_step

    def dies(loop: _Loop, order: np.ndarray) -> dict[str, float]:
        if loop.step == KILLED_AFTER:
            raise KeyboardInterrupt
        return honest(loop, order)

    _Loop._train_step = dies  # type: ignore[method-assign, assignment]
    try:
        run(name, folder, settings_of(name, folder), folder / f"{name}, killed")
    except KeyboardInterrupt:
        pass
    finally:
        _Loop._train_step = honest  # type: ignore[method-assign]


def work(folder: Path) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    processes = Processes.join(asked=2)
    try:
        Processes.join(asked=3)
    except ProcessesError as error:
        refusal = str(error)
    for name in RUNS:
        run(name, folder, settings_of(name, folder), folder / name)
    for name in KILLED:
        killed_run(name, folder)
        run(name, folder, settings_of(name, folder), folder / f"{name}, killed")
    killed_run("replicated", folder / "for one")  # the test goes on with it alone
    spoilt = replace(settings_of("replicated", folder), learning_rate=1e30, max_steps=9)
    try:
        run("replicated", folder, spoilt, folder / "spoilt")
    except TrainingError as error:
        stopped = str(error)
    said = processes.gather({"rank": processes.rank, "refusal": refusal, "stopped": stopped})
    if processes.is_main:
        (folder / "said.json").write_text(json.dumps(said))
    processes.leave()
