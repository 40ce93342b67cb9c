"""The training loop: batches, rewards, loss summed over valid examples and divided by their count, step.

`train` runs in a process, in a notebook, or from the shell: `python -m rmlib.training run.json`.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from datasets import Dataset
from jaxtyping import Float
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import get_scheduler

from rmlib import batches, losses, paths
from rmlib import pairs as tables
from rmlib.examples import Examples, TrainingError, prepare
from rmlib.models import RewardModel, fingerprint
from rmlib.settings import TrainSettings

logger = logging.getLogger(__name__)

SETTINGS_FILE, LOG_FILE, FINISHED_FILE, MODEL_FOLDER = "settings.json", "log.jsonl", "finished.json", "model"


# --- loss, evaluation -------------------------------------------------------------------------------------------------


def rewards_of(
    model: RewardModel, examples: Examples, indices: Sequence[int], precision: str = "fp32"
) -> Float[Tensor, "pair 2 attribute"]:
    """Rewards of both responses of some examples, from kept features where the backbone is frozen."""
    if examples.features is not None:
        rewards = model.read(examples.features[list(indices)].to(model.device))
    else:
        batch = model.collate([examples.groups[index] for index in indices])
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            rewards = model(batch)
    return rewards.view(len(indices), 2, -1)


def example_losses(
    loss: str, rewards: Float[Tensor, "pair 2 attribute"], examples: Examples, indices: Sequence[int]
) -> Float[Tensor, "example"]:
    """One loss per pair, or per response for regression (0 for a response without a rating)."""
    rows = list(indices)
    if loss == "regression":
        return losses.regression_loss(rewards.flatten(0, 1), examples.ratings[rows].to(rewards.device).flatten(0, 1))
    strength = examples.strength[rows].to(rewards.device)
    return losses.pair_loss(loss, rewards[:, 0, 0], rewards[:, 1, 0], strength)


def n_valid(loss: str, examples: Examples, indices: Sequence[int]) -> int:
    """How many examples a loss is averaged over: pairs, or responses that carry a rating."""
    if loss != "regression":
        return len(indices)
    return int(losses.is_rated(examples.ratings[list(indices)].flatten(0, 1)).sum())


@torch.no_grad()
def evaluate(model: RewardModel, examples: Examples, settings: TrainSettings) -> dict[str, float]:
    """Mean loss and strict accuracy of the first attribute over all examples, each counted once.

    A tie counts as wrong; accuracy is over decided pairs and NaN where there are none.
    """
    was_training = model.training
    model.eval()
    total, correct = 0.0, 0
    for indices in _forward_batches(model, examples, range(len(examples)), settings.token_budget):
        rewards = rewards_of(model, examples, indices, settings.precision)
        total += float(example_losses(settings.loss, rewards, examples, indices).double().sum())
        margin = (rewards[:, 0, 0] - rewards[:, 1, 0]).cpu() * examples.strength[indices]
        correct += int((margin > 0).sum())
    model.train(was_training)
    decided = int((examples.strength != 0).sum())
    count = n_valid(settings.loss, examples, range(len(examples)))
    return {"loss": total / count, "accuracy": correct / decided if decided else math.nan}


def _forward_batches(
    model: RewardModel, examples: Examples, indices: Sequence[int], token_budget: int
) -> Iterator[list[int]]:
    if examples.features is not None:
        yield list(indices)
        return
    for batch in batches.pack([examples.groups[index] for index in indices], token_budget, shared=model.shared):
        yield [indices[position] for position in batch]


# --- runs -------------------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """A finished run: its folder, settings and model."""

    folder: Path
    settings: TrainSettings

    @cached_property
    def model(self) -> RewardModel:
        """The trained model, read from the run's folder."""
        return RewardModel.load(self.folder / MODEL_FOLDER)

    @property
    def history(self) -> pd.DataFrame:
        """The log: one row per optimizer step."""
        return pd.DataFrame(_read_log(self.folder))

    @property
    def summary(self) -> dict[str, Any]:
        """Steps, pairs, tokens, seconds, what was left out, last evaluation."""
        return json.loads((self.folder / FINISHED_FILE).read_text())


def train(
    model: RewardModel,
    pairs: Dataset,
    settings: TrainSettings,
    *,
    selection: Dataset | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Train on `pairs` and return the run; take the model from `run.model`.

    The run is named by initial model, settings and data: asked for again it is returned as it is, and where it was
    interrupted it goes on from its last checkpoint, to the same bits on a CPU. `selection` pairs are evaluated every
    `evaluate_every_steps` and at the end. Raises TrainingError for a non-finite loss (with the pair ids of the step),
    an over-long pair, or a `folder` that holds another run.
    """
    # The order of the rows counts too: the seed shuffles positions.
    data = [[tables.content_hash(table), table["pair_id"][:]] for table in (pairs, selection) if table is not None]
    identity = fingerprint("train", model.identity, asdict(settings), data)
    path = Path(folder) if folder is not None else paths.runs_dir() / "train" / identity
    run = Run(path, settings)
    _claim(path, settings, identity)
    if not (path / FINISHED_FILE).is_file():
        _Loop(model, pairs, selection, settings, path, identity).run(progress)
    return run


def _claim(folder: Path, settings: TrainSettings, identity: str) -> None:
    """Write the settings into a new run folder; refuse one that belongs to another run."""
    file = folder / SETTINGS_FILE
    if file.is_file() and (found := json.loads(file.read_text())["identity"]) != identity:
        raise TrainingError(
            f"{folder.name} holds run {found}, not {identity}: settings, data or initial model differ; "
            "name another folder, or remove that one"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, {"identity": identity, "settings": asdict(settings)})


def write_json(file: Path, content: Any) -> None:
    """Write to a temporary name, then rename: a reader sees the old file or the new one, never half of it."""
    temporary = file.with_suffix(file.suffix + ".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(file)


def _read_log(folder: Path, until_step: int | None = None) -> list[dict[str, Any]]:
    file = folder / LOG_FILE
    rows = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.is_file() else []
    return [row for row in rows if until_step is None or row["step"] <= until_step]


class _Loop:
    """State of one run, so that a checkpoint can hold it."""

    def __init__(
        self,
        model: RewardModel,
        pairs: Dataset,
        selection: Dataset | None,
        settings: TrainSettings,
        folder: Path,
        identity: str,
    ) -> None:
        self.settings, self.folder, self.identity = settings, folder, identity
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.model = model.to(self.accelerator.device)
        self.examples = prepare(model, pairs, settings)
        self.selection = prepare(model, selection, settings) if selection is not None else None
        self.n_steps = settings.n_steps(len(self.examples))
        if model.fresh_head and settings.loss == "regression":
            self._start_at_mean_rating()
        if settings.trainable == "head" or not isinstance(model.backbone, PeftModel):  # peft sets its own flags
            model.backbone.requires_grad_(settings.trainable == "all")
        self.optimizer = torch.optim.AdamW(
            _decay_groups(model, settings.weight_decay), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
        self.scheduler = get_scheduler(
            settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
            self.optimizer,
            num_warmup_steps=settings.warmup_steps,
            num_training_steps=self.n_steps,
        )
        self.step, self.seconds, self.n_tokens = 0, 0.0, 0

    def _start_at_mean_rating(self) -> None:
        """A fresh regression head starts at the training mean: at this size of step a bias would crawl to it."""
        mean = torch.nanmean(self.examples.ratings.flatten(0, 1), dim=0)
        self.model.head.bias.data.copy_(torch.nan_to_num(mean))

    def run(self, progress: bool) -> None:
        with torch.random.fork_rng():  # the caller's generators stay as they were
            torch.manual_seed(self.settings.seed)  # for dropout; the order of the data has a generator of its own
            self._resume()
            self._steps(progress)
        self._finish()

    def _steps(self, progress: bool) -> None:
        self.model.train()
        order = sampling_order(len(self.examples), self.n_steps * self.settings.pairs_per_step, self.settings)
        with (
            (self.folder / LOG_FILE).open("a") as log,
            tqdm(total=self.n_steps, initial=self.step, unit="step", disable=not progress, leave=False) as bar,
        ):
            while self.step < self.n_steps:
                row = self._train_step(order)
                log.write(json.dumps(row) + "\n")
                log.flush()
                bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if "loss" in k or "accuracy" in k})
                bar.update()
                every = self.settings.checkpoint_every_steps
                if every and self.step % every == 0 and self.step < self.n_steps:
                    self._write_checkpoint()

    def _train_step(self, order: np.ndarray) -> dict[str, float]:
        start, settings = time.perf_counter(), self.settings
        indices = order[self.step * settings.pairs_per_step : (self.step + 1) * settings.pairs_per_step].tolist()
        count = n_valid(settings.loss, self.examples, indices)
        total = 0.0
        for batch in _forward_batches(self.model, self.examples, indices, settings.token_budget):
            rewards = rewards_of(self.model, self.examples, batch, settings.precision)
            loss = example_losses(settings.loss, rewards, self.examples, batch).sum() / count
            self._refuse_non_finite(loss, batch)
            self.accelerator.backward(loss)
            total += float(loss)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        learning_rate = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.n_tokens += sum(self.examples.groups[index].n_tokens_shared for index in indices)
        row = {"step": self.step, "loss": total, "gradient_norm": float(norm), "learning_rate": learning_rate}
        every = settings.evaluate_every_steps
        if self.selection is not None and (self.step == self.n_steps or (every and self.step % every == 0)):
            scores = evaluate(self.model, self.selection, settings)
            row |= {f"selection_{name}": value for name, value in scores.items()}
        self.seconds += time.perf_counter() - start
        return row | {"pairs": self.step * settings.pairs_per_step, "tokens": self.n_tokens, "seconds": self.seconds}

    def _refuse_non_finite(self, loss: Tensor, batch: Sequence[int]) -> None:
        if not torch.isfinite(loss):
            ids = [self.examples.pair_ids[index] for index in batch]
            raise TrainingError(
                f"loss is {float(loss)} at step {self.step + 1}, pairs {ids}; lower the learning rate, or look "
                "at these pairs. The last checkpoint is kept"
            )

    def _finish(self) -> None:
        self.model.eval()
        self.model.identity, self.model.fresh_head = self.identity, False
        if self.settings.trainable == "all":
            self.model.body_identity = self.identity
        self.model.save(self.folder / MODEL_FOLDER)
        last = _read_log(self.folder)[-1]
        summary = {
            "n_steps": self.n_steps,
            "n_pairs": len(self.examples),
            "left_out": self.examples.left_out,
            "n_cut": self.examples.n_cut,
            "layout": self.model.layout,
            **last,
        }
        write_json(self.folder / FINISHED_FILE, summary)
        self._tensorboard()
        for checkpoint in self.folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)

    def _tensorboard(self) -> None:
        """The log as TensorBoard scalars, beside it."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        with SummaryWriter(str(self.folder / "tensorboard")) as writer:
            for row in _read_log(self.folder):
                for name, value in row.items():
                    writer.add_scalar(name, value, row["step"])

    # --- checkpoints: written under a temporary name, then renamed ----------------------------------------------------

    def _write_checkpoint(self) -> None:
        path = self.folder / f"checkpoint-{self.step:06d}"
        temporary = path.with_name(path.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        weights = {name: weight.contiguous() for name, weight in self._trained().items()}
        save_file(weights, temporary / "weights.safetensors")
        state = {"optimizer": self.optimizer.state_dict(), "scheduler": self.scheduler.state_dict()}
        torch.save(state | {"generator": torch.get_rng_state()}, temporary / "state.pt")
        write_json(temporary / "progress.json", {"step": self.step, "seconds": self.seconds, "n_tokens": self.n_tokens})
        temporary.replace(path)
        for older in sorted(self.folder.glob("checkpoint-??????"))[:-2]:
            shutil.rmtree(older)

    def _trained(self) -> dict[str, Tensor]:
        return {name: weight.data for name, weight in self.model.named_parameters() if weight.requires_grad}

    def _resume(self) -> None:
        found = sorted(self.folder.glob("checkpoint-??????"))
        if found:
            weights = load_file(found[-1] / "weights.safetensors", device=str(self.model.device))
            for name, weight in self._trained().items():
                weight.copy_(weights[name])
            state = torch.load(found[-1] / "state.pt", weights_only=True)
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            torch.set_rng_state(state["generator"])
            progress = json.loads((found[-1] / "progress.json").read_text())
            self.step, self.seconds, self.n_tokens = progress["step"], progress["seconds"], progress["n_tokens"]
            logger.info("continuing %s at step %d", self.folder.name, self.step)
        rows = _read_log(self.folder, until_step=self.step)
        (self.folder / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def sampling_order(n_pairs: int, n_draws: int, settings: TrainSettings) -> np.ndarray:
    """Which pair each draw takes: whole epochs end to end, each shuffled from the seed unless `shuffle` is off."""
    rng = np.random.default_rng(settings.seed)
    n_epochs = -(-n_draws // n_pairs)
    epochs = [rng.permutation(n_pairs) if settings.shuffle else np.arange(n_pairs) for _ in range(n_epochs)]
    return np.concatenate(epochs)[:n_draws]


def _decay_groups(model: RewardModel, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for matrices only, as in Megatron: shrinking a norm or a bias is no regularisation."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]


def create_model(settings: TrainSettings) -> RewardModel:
    """The initial model that the settings describe."""
    lora = {"r": settings.lora_rank, "lora_alpha": 2 * settings.lora_rank} if settings.lora_rank else None
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    quantization = nf4 if settings.quantization == "nf4" else None
    return RewardModel.create(
        settings.backbone, settings.attributes, lora=lora, quantization=quantization, seed=settings.seed
    )


def main(arguments: Sequence[str]) -> None:
    """`python -m rmlib.training run.json`: keys `source`, `settings`, and optionally `initialise_from` (a folder)."""
    from rmlib import sources

    if len(arguments) != 1:
        raise SystemExit("usage: python -m rmlib.training run.json")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    job = json.loads(Path(arguments[0]).read_text())
    if unknown := job.keys() - {"source", "settings", "initialise_from", "folder"}:
        raise SystemExit(f"{arguments[0]}: unknown keys {sorted(unknown)}")
    settings = TrainSettings.from_dict(job["settings"])
    table = sources.load(job["source"])
    start = job.get("initialise_from")
    model = RewardModel.load(start) if start else create_model(settings)
    pairs, selection = tables.carve_selection(table.select(np.flatnonzero(np.array(table["split"]) == "train")), 0.1, 0)
    run = train(model, pairs, settings, selection=selection, folder=job.get("folder"))
    print(json.dumps(run.summary, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
