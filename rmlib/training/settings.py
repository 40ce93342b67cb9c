"""What names a training run: one frozen dataclass, and its hash."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from rmlib.records.hashing import fingerprint

# The names that `losses` and `models.network` know, written down again: reading settings should not import torch.
PAIR_LOSSES = ("bradley_terry", "margin_bradley_terry", "scaled_bradley_terry")
LOSSES = ("regression", *PAIR_LOSSES, "plackett_luce")
HEAD_LAYERS = (1, 2)
SCHEDULES, PRECISIONS = ("constant", "linear", "cosine"), ("fp32", "bf16")
TRAINABLE, OVERLONG = ("all", "head"), ("error", "leave_out")
OPTIMIZERS = ("adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit")  # the last three: bitsandbytes
SHARDINGS, COMPILERS = ("none", "full"), ("none", "inductor", "aot_eager")


@dataclass(frozen=True)
class TrainSettings:
    """Everything that names a run besides its data and its initial model; `hash` is its short name.

    Raises ValueError for an unknown loss, schedule, precision or policy, and for sizes that are not positive.
    """

    backbone: str = "embedded"
    loss: str = "scaled_bradley_terry"
    attributes: tuple[str, ...] = ("helpfulness",)  # outputs of the head
    trainable: str = "all"  # "head": the backbone is frozen, its features are computed once and kept
    lora_rank: int = 0  # 0: every weight is trained
    quantization: str = "none"  # "nf4": 4-bit backbone, for adapters
    epochs: float = 1.0
    max_steps: int | None = None  # where given, in place of the steps that the epochs make
    pairs_per_step: int = 64  # a ranking of several responses counts as one
    token_budget: int = 16_384  # tokens of one forward pass
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 10
    weight_decay: float = 0.1  # of matrices; biases and norms are left alone
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    precision: str = "fp32"  # bf16: autocast of the backbone; head and loss stay in fp32
    shuffle: bool = True
    seed: int = 0
    max_length: int | None = None  # tokens of prompt and response; None: what the backbone admits
    overlong: str = "error"
    evaluate_every_steps: int = 0  # 0: after the last step only
    checkpoint_every_steps: int = 0  # 0: none
    strength_scale: tuple[float, float, float] = (1.0, 2.0, 3.0)  # what slightly better, better, much better count
    label_smoothing: float = 0.0  # probability that a preference label is taken to be wrong
    head_layers: int = 1
    regression_weight: float = 0.0  # of a regression loss that is added to a pair loss, on the same output
    soft_labels: bool = False  # the annotators' votes in place of their majority (`annotations.vote_share`)
    benchmark_every_steps: int = 0  # 0: after the last step only
    lora_alpha: int = 0  # 0: twice the rank
    lora_dropout: float = 0.0
    double_quantization: bool = True  # of nf4: its scales are quantised too
    backbone_dtype: str = "fp32"  # bf16: half the memory, for weights that are not trained themselves
    optimizer: str = "adamw"  # 8 bit: a quarter of its memory; paged: moves to the host where a GPU runs out
    sharding: str = "none"  # "full": weights, gradients and optimizer states spread over the processes (FSDP2)
    activation_checkpointing: bool = False  # compute activations again in the backward pass instead of keeping them
    compile: str = "none"  # backend of torch.compile, for the backbone

    def __post_init__(self) -> None:
        known = {
            "loss": LOSSES,
            "schedule": SCHEDULES,
            "precision": PRECISIONS,
            "trainable": TRAINABLE,
            "overlong": OVERLONG,
            "quantization": ("none", "nf4"),
            "backbone_dtype": PRECISIONS,
            "optimizer": OPTIMIZERS,
            "sharding": SHARDINGS,
            "compile": COMPILERS,
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; known: {', '.join(values)}")
        for name in ("epochs", "pairs_per_step", "token_budget", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.head_layers not in HEAD_LAYERS:
            raise ValueError(f"head_layers must be one of {HEAD_LAYERS}, got {self.head_layers}")
        if len(self.strength_scale) != 3 or not min(self.strength_scale) > 0:
            raise ValueError(f"strength_scale must be three positive numbers, got {self.strength_scale}")
        self._check_labels()
        self._check_scale()

    def _check_scale(self) -> None:
        """What does not go together, said before anything is loaded."""
        adapted = self.lora_rank > 0 or self.trainable == "head"
        if self.quantization != "none" and not adapted:
            raise ValueError("a quantised backbone cannot be trained: give a lora_rank, or trainable='head'")
        if self.backbone_dtype == "bf16" and not adapted:
            raise ValueError(
                "backbone_dtype='bf16' loses updates smaller than 1/256 of a weight: give a lora_rank or "
                "trainable='head', or keep fp32 weights with precision='bf16'"
            )
        if self.sharding != "none" and (self.quantization != "none" or self.backbone_dtype != "fp32"):
            raise ValueError("sharding='full' needs weights of one kind: quantization='none', backbone_dtype='fp32'")
        if self.sharding != "none" and self.trainable == "head":
            raise ValueError("sharding='full' with trainable='head': a frozen backbone computes its features unsharded")
        if self.sharding != "none" and self.optimizer != "adamw":
            raise ValueError("sharding='full' spreads the states of optimizer='adamw'; bitsandbytes' cannot be spread")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout must be from 0 to below 1, got {self.lora_dropout}")
        if self.lora_alpha < 0:
            raise ValueError(f"lora_alpha must not be negative, got {self.lora_alpha}")

    def _check_labels(self) -> None:
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing must be from 0 to below 1/2, got {self.label_smoothing}")
        if not self.regression_weight >= 0:
            raise ValueError(f"regression_weight must not be negative, got {self.regression_weight}")
        if self.soft_labels and self.label_smoothing:
            raise ValueError("soft_labels are smoothed by their prior: leave label_smoothing at 0")
        of_pairs = [name for name in ("soft_labels", "label_smoothing", "regression_weight") if getattr(self, name)]
        if of_pairs and self.loss not in PAIR_LOSSES:
            raise ValueError(f"{of_pairs[0]} belongs to a pair loss ({', '.join(PAIR_LOSSES)}), not to {self.loss}")

    @property
    def hash(self) -> str:
        return fingerprint(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The settings as names and records hold them; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainSettings:
        """Settings from JSON, what it lacks at its default; raises ValueError for a name that is no setting."""
        return cls(**as_fields(cls, values))

    def n_steps(self, n_pairs: int) -> int:
        """Optimizer steps: the epochs laid end to end, cut into whole steps (at least one), as in the original."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, math.floor(self.epochs * n_pairs / self.pairs_per_step))


def as_fields(kind: Any, values: dict[str, Any]) -> dict[str, Any]:
    """What JSON says of a dataclass of settings, lists as tuples; raises ValueError for a name that is no setting."""
    known = [item.name for item in fields(kind)]
    if unknown := values.keys() - set(known):
        raise ValueError(f"unknown settings {sorted(unknown)}; known: {', '.join(known)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
