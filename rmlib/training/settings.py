"""What names a training run besides its data and its initial model: one frozen dataclass, and how JSON becomes one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Self, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

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
    "special_tokens": ("text", "special"),
}  # fmt: skip
# How conversations are written.
CHAT = ("chat_template", "chat_template_kwargs", "system_message", "special_tokens")
POSITIVE = (
    "epochs", "max_steps", "pairs_per_step", "token_budget", "learning_rate", "clip_norm", "max_length",
)  # fmt: skip
NOT_NEGATIVE = (
    "seed", "lora_rank", "lora_alpha", "warmup_steps", "weight_decay", "regression_weight", "evaluate_every_steps",
    "checkpoint_every_steps", "benchmark_every_steps",
)  # fmt: skip

Made = TypeVar("Made")


@dataclass(frozen=True)
class Settings:
    """What the settings of any run share: checks, to JSON and back."""

    def mistakes(
        self, choices: Mapping[str, tuple[Any, ...]], positive: Iterable[str], not_negative: Iterable[str] = ()
    ) -> Iterable[str]:
        """A sentence for each setting that is none of its choices, each number out of its range, and wrong `betas`."""
        for name, known in choices.items():
            if getattr(self, name) not in known:
                yield f"{name}={getattr(self, name)!r} is unknown; known: {', '.join(map(str, known))}"
        yield from outside(self, positive, "must be positive", lambda value: value > 0)
        yield from outside(self, not_negative, "must not be negative", lambda value: value >= 0)
        numbers = [name for name in (*positive, *not_negative) if name != "clip_norm"]  # infinite: never clipped
        yield from outside(self, numbers, "must be finite", lambda value: value < math.inf)
        yield from outside(self, ["betas"], "must be two numbers from 0 to below 1", _are_betas)

    def to_dict(self) -> dict[str, Any]:
        """The settings as names and records hold them; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Settings from JSON, what it lacks at its default; raises what `from_json` raises."""
        return from_json(cls, values)

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
    chat_template: str | None = None  # in place of the backbone's own
    chat_template_kwargs: dict[str, Any] | None = None  # what it is called with, e.g. {"enable_thinking": False}
    system_message: str | None = None  # of conversations that have none; "": an empty one, not the template's own
    special_tokens: str = "text"  # within a message; "special": they keep their meaning

    def __post_init__(self) -> None:
        wrong = [*self.mistakes(CHOICES, POSITIVE, NOT_NEGATIVE), *self._out_of_range()]
        refuse(wrong or [*self._not_together()])

    def _out_of_range(self) -> Iterable[str]:
        for name, limit in {"lora_dropout": 1, "label_smoothing": 0.5}.items():
            yield from outside(self, [name], f"must be from 0 to below {limit}", lambda value: 0 <= value < limit)  # noqa: B023
        if len(self.strength_scale) != 3 or not min(self.strength_scale) > 0:
            yield f"strength_scale must be three positive numbers, got {self.strength_scale}"
        if not self.attributes or len(set(self.attributes)) < len(self.attributes):
            yield f"attributes must name each output of the head once, got {self.attributes}"

    def _not_together(self) -> Iterable[str]:
        """What does not go together, said before anything is loaded."""
        adapted = self.lora_rank > 0 or self.trainable == "head"
        if self.quantization != "none" and not adapted:
            yield "a quantised backbone cannot be trained: give a lora_rank, or trainable='head'"
        if self.backbone_dtype == "bf16" and not adapted:
            yield (
                "backbone_dtype='bf16' loses updates smaller than 1/256 of a weight: give a lora_rank or "
                "trainable='head', or keep fp32 weights with precision='bf16'"
            )
        if self.sharding != "none" and (self.quantization != "none" or self.backbone_dtype != "fp32"):
            yield "sharding='full' needs weights of one kind: quantization='none', backbone_dtype='fp32'"
        if self.sharding != "none" and self.trainable == "head":
            yield "sharding='full' with trainable='head': a frozen backbone computes its features unsharded"
        if self.sharding != "none" and self.optimizer != "adamw":
            yield "sharding='full' spreads the states of optimizer='adamw'; bitsandbytes' cannot be spread"
        if self.soft_labels and self.label_smoothing:
            yield "soft_labels are smoothed by their prior: leave label_smoothing at 0"
        of_pairs = [name for name in ("soft_labels", "label_smoothing", "regression_weight") if getattr(self, name)]
        if of_pairs and self.loss not in PAIR_LOSSES:
            yield f"{of_pairs[0]} belongs to a pair loss ({', '.join(PAIR_LOSSES)}), not to {self.loss}"

    @property
    def chat(self) -> dict[str, Any]:
        """What of `CHAT` is set, as `models.templates.adjust` takes it."""
        return {name: getattr(self, name) for name in CHAT if getattr(self, name) != getattr(type(self), name)}

    def to_dict(self) -> dict[str, Any]:
        """The settings as names and records hold them; `from_dict` reads them.

        Those of `CHAT` are named only where they are set, so that what was made before there were any keeps its name.
        """
        return {name: value for name, value in asdict(self).items() if name not in CHAT or name in self.chat}

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def n_steps(self, n_pairs: int) -> int:
        """Optimizer steps: the epochs laid end to end, cut into whole steps (at least one), as in the original."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, int(self.epochs * n_pairs / self.pairs_per_step))


def from_json(kind: type[Made], values: Any) -> Made:
    """A dataclass from what JSON says of its fields, lists as tuples, what is missing at its default.

    Numbers are not read from texts, nor truth values from numbers. Raises ValueError with every mistake at once: a name
    that is no field, a field that is missing, a value of another type, and what the class itself refuses.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{values!r:.60} is not an object of names and values")
    hints, made, wrong = get_type_hints(kind), {}, []
    needed = {item.name for item in fields(kind) if item.default is item.default_factory is MISSING}  # type: ignore[arg-type]
    for name, value in values.items():
        if name not in hints:
            close = get_close_matches(name, hints, n=1)
            hint = f"perhaps {close[0]} is meant" if close else f"known: {', '.join(hints)}"
            wrong.append(f"{name} is not known ({hint})")
            continue
        try:
            made[name] = _checked(hints[name], value)
        except ValidationError as error:
            problems = {problem["msg"].removeprefix("Input should be ") for problem in error.errors()}
            wrong.append(f"{name} should be {' or '.join(sorted(problems))}, got {value!r:.60}")
        except ValueError as error:  # of settings inside; what stands beside them is still looked at
            wrong.append(f"{name}: {error}")
            made[name] = hints[name]()
    for name in sorted(needed - values.keys()):
        has_defaults = hasattr(hints[name], "from_dict")
        wrong.append(f"{name} is missing" + f' (give "{name}": {{}} for the defaults)' * has_defaults)
    if not needed <= made.keys():
        refuse(wrong)
    try:
        whole = kind(**made)
    except ValueError as error:
        wrong.append(str(error))
    refuse(wrong)
    return whole


def _checked(hint: Any, value: Any) -> Any:
    """The value as the type says it; a class with `from_dict` reads its own."""
    if hasattr(hint, "from_dict"):
        return hint.from_dict(value)
    return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)


def outside(settings: Any, names: Iterable[str], rule: str, holds: Callable[[Any], bool]) -> Iterable[str]:
    """A sentence for each of these settings that is there, is given and breaks the rule."""
    for name in names:
        value = getattr(settings, name, None)
        if value is not None and not holds(value):
            yield f"{name} {rule}, got {value}"


def _are_betas(values: tuple[float, ...]) -> bool:
    """Whether these are AdamW's two decay rates."""
    return len(values) == 2 and all(0 <= value < 1 for value in values)


def refuse(mistakes: list[str]) -> None:
    """Raises ValueError with all of them, if there are any."""
    if mistakes:
        raise ValueError("; ".join(mistakes))
