"""What each of the two processes does that `test_alignment_processes.py` starts: it optimises policies.

And the small policy and prompts that the tests of optimisation share.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import save_language_model

from rmlib.alignment.align import align
from rmlib.alignment.fine_tuning import Answers, FitSettings, fit
from rmlib.alignment.loop import Alignment, PreferencePairs, Task, Watch
from rmlib.alignment.policies import Policy
from rmlib.alignment.settings import AlignSettings
from rmlib.models import RewardModel
from rmlib.training.parallel import Processes

PROMPTS = [[{"role": "user", "content": text}] for text in ("Name a fruit.", "Hello, who is there?", "Why", "And you?")]
PAIRS = PreferencePairs(PROMPTS, ["good", "b", "c d", "e"], ["bad one", "x", "y", "zz"], np.array([1.0, 2.0, 3.0, 1.0]))
COMMON: dict[str, Any] = {"prompts_per_step": 4, "max_new_tokens": 10, "learning_rate": 1e-2, "kl_coefficient": 0.3}
SETTINGS = {
    "dpo": AlignSettings("dpo", n_steps=5, checkpoint_every_steps=2, **COMMON | {"prompts_at_once": 1}),
    "reinforce": AlignSettings("reinforce", n_steps=1, **COMMON),
    "ppo": AlignSettings("ppo", n_steps=1, rounds=1, **COMMON),
}


def fitted_policy(folder: Path) -> Policy:
    """A small policy that was fitted to random letters, 1 to 12 of them: some of its answers do not end in time."""
    made = Policy.create(save_language_model(folder))
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh"), size=rng.integers(1, 13))) for _ in range(400)]
    settings = FitSettings(epochs=12, prompts_per_step=40, learning_rate=5e-3, warmup_steps=5, weight_decay=0.0)
    fit(made, Answers(PROMPTS * 50, texts), settings)
    return made


class Early:
    """The reward of a text: the share of its letters that have an odd code."""

    name = "early"

    def score(self, prompts: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
        return np.array([np.mean([ord(letter) % 2 for letter in text]) if text else 0.0 for text in responses])


def optimised(method: str, folder: Path) -> Alignment:
    """A run of a method on the policy and the value model in a folder."""
    policy, critic = Policy.create(str(folder / "policy")), RewardModel.create(str(folder / "critic"), seed=1)
    given: dict[str, Any] = {"pairs": PAIRS} if method == "dpo" else {"reward": Early(), "prompts": PROMPTS}
    if method == "ppo":
        given["critic"] = critic
    watch = Watch(PROMPTS, {"proxy": Early()}, every_steps=2, samples_per_prompt=2)
    return align(policy, SETTINGS[method], Task(**given, watch=watch), progress=False)


def work(folder: Path) -> None:
    """What each of the two processes does."""
    torch.set_num_threads(1)
    processes = Processes.join(asked=2)
    for method in SETTINGS:
        run = optimised(method, folder)
        assert optimised(method, folder).folder == run.folder  # found again by both
        if processes.is_main:
            run.folder.rename(folder / method)
        processes.on_main(lambda: None)
    processes.leave()
