"""What names an optimisation of a policy: one frozen dataclass, and presets of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rmlib.training.settings import PAIR_LOSSES, Settings, refuse

METHODS = ("reinforce", "ppo", "dpo")
POSITIVE = (
    "n_steps", "prompts_per_step", "samples_per_prompt", "max_new_tokens", "rounds", "learning_rate", "minibatches",
    "prompts_at_once", "token_budget", "beta", "clip_norm", "value_learning_rate", "ratio_clip", "value_clip",
)  # fmt: skip
NOT_NEGATIVE = ("kl_coefficient", "warmup_steps", "weight_decay", "lora_rank", "seed", "checkpoint_every_steps")


@dataclass(frozen=True)
class AlignSettings(Settings):
    """Everything that names an optimisation but the policy, the reward and the prompts.

    Raises ValueError for an unknown method or loss, and for sizes that are not positive.
    """

    method: str = "reinforce"
    n_steps: int = 50  # of each round, for ppo
    prompts_per_step: int = 16  # for dpo: pairs
    samples_per_prompt: int = 4
    max_new_tokens: int = 40
    kl_coefficient: float = 0.01
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    lora_rank: int = 0  # 0: every weight is trained
    token_budget: int = 8192  # tokens of one forward pass
    prompts_at_once: int = 64  # whose passes are held until backward
    seed: int = 0
    checkpoint_every_steps: int = 0  # 0: none
    # ppo
    rounds: int = 2
    minibatches: int = 2
    ratio_clip: float = 0.2
    value_clip: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    value_learning_rate: float = 1e-3
    # dpo
    loss: str = "bradley_terry"
    beta: float = 0.1

    def __post_init__(self) -> None:
        wrong = [*self.mistakes({"method": METHODS, "loss": PAIR_LOSSES}, POSITIVE, NOT_NEGATIVE)]
        if self.method == "reinforce" and self.samples_per_prompt == 1:
            wrong.append("a leave-one-out baseline needs at least 2 samples_per_prompt, got 1")
        refuse(wrong)

    def to_dict(self) -> dict[str, Any]:
        """As records and names hold them: without what belongs to another method."""
        of_ppo = {"rounds", "minibatches", "ratio_clip", "value_clip", "gamma", "lam", "value_learning_rate"}
        of_dpo, of_samples = {"loss", "beta"}, {"samples_per_prompt", "kl_coefficient"}
        foreign = {"reinforce": of_ppo | of_dpo, "ppo": of_dpo, "dpo": of_ppo | of_samples}[self.method]
        return {name: value for name, value in super().to_dict().items() if name not in foreign}


# Where the paper's own values are not known (its Appendix E), the defaults of the authors' code stand in: NeMo-Aligner,
# REINFORCE 32 rollouts a step, KL 0.01, rate 1e-6; PPO 64 a step, rates 9e-7 and 9e-6, gamma 1, lambda 0.95, clips 0.2.
_PAPER: dict[str, Any] = {"max_new_tokens": 2048, "weight_decay": 0.1, "warmup_steps": 10, "kl_coefficient": 0.01}
PAPER = {
    "reinforce": AlignSettings("reinforce", learning_rate=1e-6, prompts_per_step=8, **_PAPER),
    "ppo": AlignSettings(
        "ppo", learning_rate=9e-7, value_learning_rate=9e-6, prompts_per_step=64, samples_per_prompt=1, minibatches=1,
        **_PAPER,
    ),
    "dpo": AlignSettings("dpo", learning_rate=2e-7, prompts_per_step=64, beta=0.1, **_PAPER),
}  # fmt: skip
