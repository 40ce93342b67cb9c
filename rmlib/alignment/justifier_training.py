"""Fine-tuning a language model to justify preferences: cross-entropy of the written tokens, by TRL or by a small loop.

What is trained is kept in `runs/justifier/` under a name made of everything that it depends on, and found again there.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, TrainerCallback, get_scheduler
from transformers.utils import logging as transformers_logging

from rmlib.alignment.policies import Policy
from rmlib.models import RewardModel, backbones, batches
from rmlib.models.batches import Group
from rmlib.models.features import hash_of_weights
from rmlib.models.likelihood import header, targets_of, token_log_probabilities
from rmlib.records import paths
from rmlib.records.hashing import fingerprint
from rmlib.records.progress import progress_bar

MODEL_FOLDER, LOG_FILE = "model", "log.json"
TOKEN_BUDGET = 8_192  # of one pass
BETAS = (0.9, 0.98)  # of AdamW


@dataclass(frozen=True)
class FineTuning:
    """How a justifier is fine-tuned; the learning rate falls linearly to 0 after the warm-up.

    `trainer`: "trl" is TRL's SFTTrainer; with `lora_rank` it trains adapters, merged at the end, otherwise every
    weight. "own" is a loop for small decoders on a CPU, every weight in fp32: rows without padding, logits where words
    are written. Both minimise the same loss. The authors' settings are not published. Raises ValueError for an unknown
    trainer, and for what "own" does not do.
    """

    n_steps: int
    examples_per_step: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    weight_decay: float = 0.0
    lora_rank: int = 0
    precision: str = "fp32"  # or bf16
    trainer: str = "trl"  # or own
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trainer not in TRAINERS:
            raise ValueError(f"trainer must be 'trl' or 'own', got {self.trainer!r}")
        if self.trainer == "own" and (self.lora_rank or self.precision != "fp32"):
            raise ValueError("the own loop trains every weight in fp32: take trainer='trl' for adapters and bf16")

    @property
    def n_examples(self) -> int:
        """How many examples are drawn, each seen once."""
        return self.n_steps * self.examples_per_step


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned policy and how it came about; `curve` holds step and mean loss (nats a written token) up to it."""

    policy: Policy
    folder: Path
    curve: list[dict[str, float]]
    n_tokens: int
    seconds: float


def on_reward_model(model: RewardModel, *, new_layers: int = 0, new_heads: int = 0, seed: int = 0) -> Policy:
    """A language model on the backbone of a reward model, which has learnt to tell responses apart.

    It may be given room for what it has not learnt: layers on top of its own, and attention heads beside its own in
    every layer. Until they are trained these change nothing, since they write 0 (function-preserving growth,
    arXiv 1511.05641). What is new is drawn from the seed: these weights, and the output layer where it is not tied to
    the embeddings. Raises BackboneError for an encoder, which cannot write, for growth of a decoder that is no Llama or
    whose heads share their keys, and for a number of heads that does not divide its width (transformers wants it to).
    """
    if model.kind != "decoder":
        raise backbones.BackboneError(f"{model.name!r} is an encoder and cannot write: name a decoder")
    if (new_layers or new_heads) and model.config.model_type != "llama":
        raise backbones.BackboneError(f"{model.name!r} is no Llama: its layers and heads cannot be added to")
    config = copy.deepcopy(model.config)
    if new_heads and config.num_key_value_heads != config.num_attention_heads:
        raise backbones.BackboneError(f"heads of {model.name!r} share their keys: none can be added")
    if config.hidden_size % (config.num_attention_heads + new_heads):
        n_heads = config.num_attention_heads + new_heads
        raise backbones.BackboneError(f"{n_heads} heads do not divide the width {config.hidden_size} of {model.name!r}")
    config.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    config.num_hidden_layers += new_layers
    config.num_attention_heads += new_heads
    config.num_key_value_heads += new_heads
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(config)
    learnt, grown = model.backbone.state_dict(), network.base_model.state_dict()
    if strange := learnt.keys() - grown.keys():
        raise backbones.BackboneError(f"{model.name!r} has weights of other names than its kind, e.g. {min(strange)}")
    for name, weight in grown.items():
        if name.endswith((".o_proj.weight", ".down_proj.weight")):
            weight.zero_()
        if (known := learnt.get(name)) is not None:
            weight[tuple(slice(size) for size in known.shape)].copy_(known)
    network.tie_weights()
    backbones.prepare_attention(network)
    return Policy(network.eval(), model.tokenizer, paths.public_name(model.name))


def drawn(rows: Dataset, settings: FineTuning) -> Dataset:
    """The examples that a fine-tuning sees, in its order: shuffled, and as many as it needs.

    Raises ValueError where there are none; where there are fewer than needed, they are gone through again.
    """
    if not len(rows):
        raise ValueError("no annotation is an example: give pairs with statements and elaborations, and decided ones")
    order: list[int] = []
    generator = torch.Generator().manual_seed(settings.seed)
    while len(order) < settings.n_examples:
        order += torch.randperm(len(rows), generator=generator).tolist()
    return rows.select(order[: settings.n_examples]).select_columns(["prompt", "completion"])


def fine_tune(policy: Policy, rows: Dataset, settings: FineTuning, *, progress: bool = False) -> Tuned:
    """A policy fine-tuned on prompts and completions (`justifier.examples`), or the one that an earlier call finished.

    The policy given is trained in place where it has to be. A run that dies begins anew. Raises ValueError as `drawn`.
    """
    taken = drawn(rows, settings)
    start = [hash_of_weights(policy.network), policy.tokenizer.chat_template]
    name = fingerprint("justifier", start, fingerprint(taken.to_list()), asdict(settings))
    folder = paths.runs_dir() / "justifier" / name
    if not (folder / LOG_FILE).is_file():
        outcome = TRAINERS[settings.trainer](policy, taken, settings, progress)
        policy.save(folder / MODEL_FOLDER)
        temporary = folder / f"{LOG_FILE}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(outcome))
        temporary.replace(folder / LOG_FILE)
    trained = Policy.create(str(folder / MODEL_FOLDER))
    trained.name = policy.name
    return Tuned(trained, folder, **json.loads((folder / LOG_FILE).read_text()))


# --- our loop ---------------------------------------------------------------------------------------------------------


def _fit(policy: Policy, rows: Dataset, settings: FineTuning, progress: bool) -> dict[str, Any]:
    """Unpadded rows, logits of written tokens alone: on a CPU a step takes a fraction of the trainer's."""
    examples, network = encode(policy, rows), policy.network
    started = time.perf_counter()
    decayed = [weight for weight in network.parameters() if weight.dim() > 1]
    rest = [weight for weight in network.parameters() if weight.dim() <= 1]
    parts = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(parts, lr=settings.learning_rate, betas=BETAS)
    schedule = get_scheduler("linear", optimizer, settings.warmup_steps, settings.n_steps)
    losses: list[float] = []
    network.train()
    for step in progress_bar(range(settings.n_steps), desc="fine-tuning", unit="step", show=progress, leave=False):
        taken = examples[step * settings.examples_per_step : (step + 1) * settings.examples_per_step]
        groups, n_written = [Group((one.ids,), 0) for one in taken], sum(len(one.ids) - one.start for one in taken)
        total = 0.0
        for indices in batches.pack(groups, TOKEN_BUDGET, shared=policy.shared):
            loss = -token_logp(policy, [taken[index] for index in indices]).sum() / n_written
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
    network.eval()
    parts_of_run = np.array_split(np.arange(len(losses)), min(40, len(losses)))
    curve = [{"step": int(part[-1]) + 1, "loss": float(np.mean(np.array(losses)[part]))} for part in parts_of_run]
    n_tokens = sum(len(one.ids) for one in examples)
    return {"curve": curve, "n_tokens": n_tokens, "seconds": time.perf_counter() - started}


class Example(NamedTuple):
    """Prompt and completion as one row of tokens, and where the completion starts."""

    ids: np.ndarray
    start: int


def encode(policy: Policy, rows: Dataset) -> list[Example]:
    """The tokens of each example, its completion up to the token that ends it."""
    prompts, texts = rows["prompt"][:], [completion[0]["content"] for completion in rows["completion"][:]]
    heads = [header(policy.tokenizer, prompt) for prompt in prompts]
    rendered = [batches.render(policy.tokenizer, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    written = [whole[len(head) :] for whole, head in zip(rendered, heads, strict=True)]
    asked = batches.tokens_of(policy.tokenizer, heads)
    said = policy.tokenizer(written, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    ended = [row[: row.index(policy.end_id) + 1] for row in said]
    return [Example(np.concatenate([head, row]), len(head)) for head, row in zip(asked, ended, strict=True)]


def token_logp(policy: Policy, examples: Sequence[Example]) -> Float[Tensor, "token"]:
    """Log-probability of every written token, one example after another."""
    groups = [Group((one.ids,), 0) for one in examples]  # nothing is shared: each prompt has one completion
    pad = policy.tokenizer.pad_token_id or 0
    batch = batches.collate_shared(groups) if policy.shared else batches.collate_padded(groups, pad)
    targets = targets_of(groups, batch, np.array([one.start for one in examples]))
    return token_log_probabilities(policy.network, batch.to(policy.device), targets)


# --- TRL --------------------------------------------------------------------------------------------------------------


def _train(policy: Policy, rows: Dataset, settings: FineTuning, progress: bool) -> dict[str, Any]:
    from peft import LoraConfig  # these take seconds to import
    from transformers.trainer_callback import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    attention = policy.network.config._attn_implementation
    policy.network.set_attn_implementation("sdpa")  # rows of a trainer are padded
    lora = LoraConfig(r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules="all-linear")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        config = SFTConfig(
            output_dir=folder, max_steps=settings.n_steps, per_device_train_batch_size=settings.examples_per_step,
            learning_rate=settings.learning_rate, lr_scheduler_type="linear", warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay, adam_beta2=BETAS[1], max_grad_norm=1.0, seed=settings.seed,
            max_length=policy.max_length, bf16=settings.precision == "bf16", gradient_checkpointing=False,
            logging_steps=max(1, settings.n_steps // 40), save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=policy.device.type == "cpu", dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = SFTTrainer(
            policy.network, config, train_dataset=rows, processing_class=policy.tokenizer,
            peft_config=lora if settings.lora_rank else None, callbacks=[_Bar(progress)],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        seconds = trainer.train().metrics["train_runtime"]
    policy.network = trainer.model.merge_and_unload() if settings.lora_rank else trainer.model
    policy.network.set_attn_implementation(attention)
    policy.network.eval()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    curve = [{"step": entry["step"], "loss": entry["loss"]} for entry in logged]
    return {"curve": curve, "n_tokens": int(logged[-1]["num_tokens"]), "seconds": seconds}


class _Bar(TrainerCallback):
    """The project's bar in place of the trainer's own."""

    def __init__(self, show: bool) -> None:
        self.show = show

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = progress_bar(total=state.max_steps, desc="fine-tuning", unit="step", show=self.show, leave=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the trainer's notices; `rmlib.records.progress` keeps the bars of its data preparation off."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of names that transformers 5 and 6 have in common
            yield
    finally:
        transformers_logging.set_verbosity(before)


TRAINERS: dict[str, Callable[[Policy, Dataset, FineTuning, bool], dict[str, Any]]] = {"trl": _train, "own": _fit}
