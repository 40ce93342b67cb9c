"""Ways to train the same reward model on the same pairs, in the same batches and steps: ours, TRL's, a padded loop.

Each starts from the same weights whenever it is called. All are timed alike, from the first forward pass in training
to the end of the last optimizer step: without tokenising before, and without saving after.
"""

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.measure import Timed, between, now
from rmlib.models import RewardModel, batches, tokens
from rmlib.pairs import preference_view
from rmlib.training import train
from rmlib.training.settings import TrainSettings

LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Round:
    """What a way of training did in some steps: losses, tokens computed (padding included), time."""

    losses: list[float]
    n_tokens: int
    time: Timed


class Clock:
    """Time from a model's first forward pass in training to the end of the last optimizer step."""

    def __init__(self) -> None:
        self.start: tuple[float, float, float] | None = None
        self.end = now()

    def begin(self, model: torch.nn.Module, *_: Any) -> None:
        if model.training and self.start is None:
            self.start = now()

    def step(self, *_: Any) -> None:
        self.end = now()

    @property
    def time(self) -> Timed:
        if self.start is None:
            raise RuntimeError("the model was not called in training")
        return between(self.start, self.end)


@contextmanager
def clock(model: torch.nn.Module) -> Iterator[Clock]:
    """A clock that runs while a model is trained, whoever trains it."""
    made = Clock()
    handles = [model.register_forward_pre_hook(made.begin), register_optimizer_step_post_hook(made.step)]
    try:
        yield made
    finally:
        for handle in handles:
            handle.remove()


class Ours:
    """`rmlib.training.train`."""

    def __init__(
        self, model: RewardModel, batch: int, *, precision: str = "fp32", token_budget: int, **options: Any
    ) -> None:
        self.model, self.batch = model, batch
        self.start = {name: weight.detach().clone() for name, weight in self._trained()}
        self.settings = TrainSettings(
            backbone="random decoder", loss="bradley_terry", pairs_per_step=batch, token_budget=token_budget,
            learning_rate=LEARNING_RATE, warmup_steps=0, weight_decay=0.0, betas=(0.9, 0.999), precision=precision,
            shuffle=False, **options,
        )  # fmt: skip

    def _trained(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)

    def __call__(self, pairs: Dataset) -> Round:
        for name, weight in self._trained():
            weight.data.copy_(self.start[name])
        with tempfile.TemporaryDirectory() as name, clock(self.model) as watch:
            run = train(self.model, pairs, self.settings, folder=name, progress=False)
            losses, n_tokens = run.history["loss"].tolist(), int(run.summary["tokens"])
        return Round(losses, n_tokens, watch.time)


class Plain:
    """A padded loop: chosen and rejected as rows of transformers' classifier, AdamW, clipping."""

    def __init__(self, folder: Path, batch: int) -> None:
        self.model, self.tokenizer = _classifier(folder)
        self.start, self.batch = copy.deepcopy(self.model.state_dict()), batch

    def __call__(self, pairs: Dataset) -> Round:
        self.model.load_state_dict(self.start)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        groups = groups_of(self.tokenizer, pairs)
        rows = [
            batches.collate_padded(groups[start : start + self.batch], self.tokenizer.pad_token_id)
            for start in range(0, len(groups) - self.batch + 1, self.batch)
        ]
        self.model.train()
        with clock(self.model) as watch:
            losses = [self._step(row, optimizer) for row in rows]
        return Round(losses, sum(row.input_ids.numel() for row in rows), watch.time)

    def _step(self, rows: batches.PaddedBatch, optimizer: torch.optim.Optimizer) -> float:
        output = self.model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False)
        chosen, rejected = output.logits[:, 0].view(-1, 2).unbind(1)
        loss = -F.logsigmoid(chosen - rejected).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())


class Trl:
    """TRL's RewardTrainer on pairs in the order given, but where `options` of its config say otherwise."""

    def __init__(self, folder: Path, batch: int, **options: Any) -> None:
        self.model, self.tokenizer = _classifier(folder)
        self.start, self.batch, self.options = copy.deepcopy(self.model.state_dict()), batch, options

    def __call__(self, pairs: Dataset) -> Round:
        from trl import RewardTrainer

        self.model.load_state_dict(self.start)
        with tempfile.TemporaryDirectory() as name, redirect_stdout(StringIO()):  # it prints every row of its log
            collator = _counting(self.tokenizer.pad_token_id)
            trainer = RewardTrainer(
                self.model,
                self._config(name, len(pairs) // (self.batch * self.options.get("gradient_accumulation_steps", 1))),
                collator,
                self._table(pairs),
                processing_class=self.tokenizer,
            )
            with clock(self.model) as watch:
                trainer.train()
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        return Round(losses, collator.n_tokens, watch.time)

    def _config(self, folder: str, n_steps: int) -> Any:
        from trl import RewardConfig

        options = {"per_device_train_batch_size": self.batch, "train_sampling_strategy": "sequential", **self.options}
        return RewardConfig(
            folder, max_steps=n_steps, learning_rate=LEARNING_RATE, lr_scheduler_type="constant", logging_steps=1,
            max_length=None, save_strategy="no", report_to="none", disable_tqdm=True, eos_token=None,
            use_cpu=not torch.cuda.is_available(),
            **options,
        )  # fmt: skip

    def _table(self, pairs: Dataset) -> Dataset:
        view = preference_view(pairs).select_columns(["prompt", "chosen", "rejected"])
        if self.options.get("train_sampling_strategy") != "group_by_length":
            return view
        lengths = [item.longest for item in groups_of(self.tokenizer, pairs)]
        return view.add_column("length", lengths)


def _counting(pad_id: int) -> Any:
    from trl.trainer.reward_trainer import DataCollatorForPreference

    class Counting(DataCollatorForPreference):
        """TRL's own collator; counts the tokens of its batches, padding included."""

        n_tokens = 0

        def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
            made = super().torch_call(examples)
            self.n_tokens += made["input_ids"].numel()
            return made

    return Counting(pad_id)


def load(folder: Path) -> RewardModel:
    """Our model of the folder."""
    return RewardModel.load(folder / "ours")


def _classifier(folder: Path) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder / "classifier")
    return AutoModelForSequenceClassification.from_pretrained(folder / "classifier"), tokenizer


def groups_of(tokenizer: Any, pairs: Dataset) -> list[batches.Group]:
    """Tokens of the pairs, chosen response first."""
    view = preference_view(pairs)
    sides = zip(view["chosen"][:], view["rejected"][:], strict=True)
    responses = [side[0]["content"] for two in sides for side in two]
    prompts = [prompt for prompt in view["prompt"][:] for _ in range(2)]
    return batches.group(tokens.encode_decoder(tokenizer, prompts, responses), [2] * len(view))


def n_shared(groups: list[batches.Group]) -> int:
    """Tokens left when every prompt is computed once and nothing is padded."""
    return sum(item.n_tokens_shared for item in groups)


def ways(folder: Path, batch: int, precision: str, token_budget: int) -> dict[str, Callable[[], Any]]:
    """Everything that is compared in a precision, by name; made when called, since each holds a model of its own."""
    logging.getLogger("transformers.trainer").setLevel(logging.ERROR)  # it tells every trainer of its pad token
    off = {"bf16": False, "gradient_checkpointing": False}
    # Its trainer drops the column that its sampler reads the lengths from, unless told to keep all.
    grouped = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
    if precision == "bf16":
        return {
            "ours": lambda: Ours(load(folder), batch, precision="bf16", token_budget=token_budget),
            "TRL": lambda: Trl(folder, batch, bf16=True, gradient_checkpointing=False),
            "TRL, its defaults": lambda: Trl(folder, batch),
        }
    return {
        "ours": lambda: Ours(load(folder), batch, token_budget=token_budget),
        "TRL": lambda: Trl(folder, batch, **off),
        "TRL, grouped by length": lambda: Trl(folder, batch, **(off | grouped)),
        "TRL, a pair at a time": lambda: Trl(folder, 1, **off, gradient_accumulation_steps=batch),
        "plain loop": lambda: Plain(folder, batch),
    }
