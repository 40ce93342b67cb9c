"""What names a training run besides its data and its initial model: one frozen dataclass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

# The names that `losses` and `models.network` know, written down again: reading settings should not import torch.
PAIR_LOSSES = ("bradley_terry", "margin_bradley_terry", "scaled_bradley_terry")
LOSSES = ("regression", *PAIR_LOSSES, "plackett_luce")
HEAD_LAYERS = (1, 2)
# The settings that are chosen from a few. All optimizers but the first come from bitsandbytes.
CHOICES: dict[str, tuple[Any, ...]] = {
    "loss": LOSSES, "head_layers": HEAD_LAYERS, "trainable": ("all", "head"), "quantization": ("none", "nf4"),
    "schedule": ("constant", "linear", "cosine"), "precision": ("fp32", "bf16"), "backbone_dtype": ("fp32", "bf16"),
    "overlong": ("error", "leave_out"), "sharding": ("none", "full"), "compile": ("none", "inductor", "aot_eager"),
    "optimizer": ("adamw", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What the settings of any run share: checks, to JSON and back."""

    def check(self, choices: Mapping[str, tuple[Any, ...]], positive: Iterable[str]) -> None:
        """Raise ValueError for a setting that is none of its choices, and for a number that is not positive."""
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r} is unknown; known: {', '.join(map(str, known))}")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as names and records hold them; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings from JSON, what it lacks at its default; raises ValueError for a name that is no setting."""
        known = [item.name for item in fields(cls)]
        if unknown := values.keys() - set(known):
            raise ValueError(f"unknown settings {sorted(unknown)}; known: {', '.join(known)}")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def change(self, **settings: Any) -> Self:
        """The same settings with some changed."""
        return replace(self, **settings)


@dataclass(frozen=True)
class TrainSettings(Settings):
    """The settings of a run; its name is made from all of them.

    Raises ValueError for what `CHOICES` does not have, a number out of its range, and what does not go together.
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
        self.check(CHOICES, ("epochs", "pairs_per_step", "token_budget", "learning_rate", "clip_norm"))
        for name, limit in {"lora_dropout": 1, "label_smoothing": 0.5}.items():
            if not 0 <= getattr(self, name) < limit:
                raise ValueError(f"{name} must be from 0 to below {limit}, got {getattr(self, name)}")
        for name in ("lora_alpha", "regression_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if len(self.strength_scale) != 3 or not min(self.strength_scale) > 0:
            raise ValueError(f"strength_scale must be three positive numbers, got {self.strength_scale}")
        self._check_together()

    def _check_together(self) -> None:
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
        if self.soft_labels and self.label_smoothing:
            raise ValueError("soft_labels are smoothed by their prior: leave label_smoothing at 0")
        of_pairs = [name for name in ("soft_labels", "label_smoothing", "regression_weight") if getattr(self, name)]
        if of_pairs and self.loss not in PAIR_LOSSES:
            raise ValueError(f"{of_pairs[0]} belongs to a pair loss ({', '.join(PAIR_LOSSES)}), not to {self.loss}")

    def n_steps(self, n_pairs: int) -> int:
        """Optimizer steps: the epochs laid end to end, cut into whole steps (at least one), as in the original."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, int(self.epochs * n_pairs / self.pairs_per_step))
