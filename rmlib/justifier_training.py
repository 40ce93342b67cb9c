"""Fine-tuning a language model to justify preferences, with TRL's SFTTrainer: cross-entropy of the written tokens.

What is trained is kept in `runs/justifier/` under a name made of everything that it depends on, and found again there.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.utils import logging as transformers_logging

from rmlib import backbones, paths
from rmlib.alignment.policies import Policy
from rmlib.bars import progress_bar
from rmlib.features import hash_of_weights
from rmlib.models import RewardModel, fingerprint

MODEL_FOLDER, LOG_FILE = "model", "log.json"


@dataclass(frozen=True)
class FineTuning:
    """How a justifier is fine-tuned; the learning rate falls linearly to 0 after the warm-up.

    With `lora_rank` adapters are trained and merged at the end, otherwise every weight. The authors' settings are not
    published.
    """

    n_steps: int
    examples_per_step: int = 32
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    weight_decay: float = 0.0
    lora_rank: int = 0
    precision: str = "fp32"  # or bf16
    seed: int = 0

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


def on_reward_model(model: RewardModel, *, seed: int = 0) -> Policy:
    """A language model on the backbone of a reward model, which has learnt to tell responses apart.

    The output layer is drawn from the seed where the backbone does not tie it to its embeddings. Raises BackboneError
    for an encoder, which cannot write.
    """
    if model.kind != "decoder":
        raise backbones.BackboneError(f"{model.name!r} is an encoder and cannot write: name a decoder")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(model.config)
    network.base_model.load_state_dict(model.backbone.state_dict())
    network.tie_weights()
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
        outcome = _train(policy, taken, settings, progress)
        policy.save(folder / MODEL_FOLDER)
        temporary = folder / f"{LOG_FILE}.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(outcome))
        temporary.replace(folder / LOG_FILE)
    trained = Policy.create(str(folder / MODEL_FOLDER))
    trained.name = policy.name
    return Tuned(trained, folder, **json.loads((folder / LOG_FILE).read_text()))


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
            weight_decay=settings.weight_decay, max_grad_norm=1.0, seed=settings.seed, shuffle_dataset=False,
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
    """Without the trainer's notices and the bars of its data preparation."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        datasets.enable_progress_bars()
