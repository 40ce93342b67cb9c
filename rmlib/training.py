"""The training loop: batches, rewards, loss summed over valid examples and divided by their count, step.

`train` runs in a process, in a notebook, or from the shell: `python -m rmlib.training run.json`.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from transformers import get_scheduler

from rmlib import checkpoints, paths
from rmlib import pairs as tables
from rmlib.annotations import preference_items
from rmlib.bars import progress_bar
from rmlib.benchmarks import watching
from rmlib.benchmarks.watching import Watched
from rmlib.curves import Curves
from rmlib.examples import TrainingError, prepare
from rmlib.models import RewardModel, fingerprint
from rmlib.objective import batches_ahead, evaluate, example_losses, forward_batches, n_valid, rewards_of
from rmlib.runs import FINISHED_FILE, LOG_FILE, MODEL_FOLDER, Run, claim, read_log, write_json
from rmlib.settings import TrainSettings
from rmlib.starts import Start, create_model

logger = logging.getLogger(__name__)


def train(
    model: RewardModel | Start,
    pairs: Dataset,
    settings: TrainSettings,
    *,
    selection: Dataset | None = None,
    benchmarks: Watched | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Train on `pairs` and return the run; take the model from `run.model`.

    The run is named by initial model, settings and data: asked for again it is returned as it is, and where it was
    interrupted it goes on from its last checkpoint, to the same bits on a CPU. `selection` pairs are evaluated every
    `evaluate_every_steps`, items of `benchmarks` (by name; see `watching.sample`) every `benchmark_every_steps`, and
    both at the end; neither changes what is learnt. Raises TrainingError for a non-finite loss (with the pair ids of
    the step), an over-long pair, a model with another number of head layers, or a `folder` that holds another run.
    """
    watched = dict(benchmarks or {})
    identity = run_identity(model.identity, pairs, settings, selection, watched)
    path = Path(folder) if folder is not None else run_folder(identity)
    run = Run(path, settings)
    claim(path, settings, identity)
    if not run.is_finished:
        made = model if isinstance(model, RewardModel) else model.make()
        _check_head(made, settings)
        watching.check(watched)
        _Loop(made, pairs, selection, watched, settings, path, identity).run(progress)
    return run


def _check_head(model: RewardModel, settings: TrainSettings) -> None:
    if model.head_layers != settings.head_layers:
        raise TrainingError(
            f"the model's head has {model.head_layers} layer(s), the settings ask for {settings.head_layers}; make the "
            "model with create_model(settings), or load it with head='redraw' and head_layers"
        )


def run_identity(
    start: str, pairs: Dataset, settings: TrainSettings, selection: Dataset | None, benchmarks: Watched | None = None
) -> str:
    """The name of a run, and of the model that comes out, from the identity of the initial model."""
    data = [_data_identity(table, settings) for table in (pairs, selection) if table is not None]
    data += watching.identity(benchmarks or {})
    return fingerprint("train", start, settings.to_dict(), data)


def run_folder(identity: str) -> Path:
    """Where a run lies unless `train` is told otherwise."""
    return paths.runs_dir() / "train" / identity


_known_data: WeakKeyDictionary[Dataset, list[Any]] = WeakKeyDictionary()


def _data_identity(pairs: Dataset, settings: TrainSettings) -> list[Any]:
    """What a run's name says of a table: its labels, the order of its rows, and the votes where they are learnt."""
    if pairs not in _known_data:  # reading thousands of rows takes longer than all else about a finished run
        # The order of the rows counts too: the seed shuffles positions.
        _known_data[pairs] = [tables.content_hash(pairs), pairs["pair_id"][:]]
    votes = [preference_items(pairs)] if settings.soft_labels else []
    return [*_known_data[pairs], *votes]


class _Loop:
    """State of one run, so that a checkpoint can hold it."""

    def __init__(
        self,
        model: RewardModel,
        pairs: Dataset,
        selection: Dataset | None,
        benchmarks: Watched,
        settings: TrainSettings,
        folder: Path,
        identity: str,
    ) -> None:
        self.settings, self.folder, self.identity, self.benchmarks = settings, folder, identity, benchmarks
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.model = model.to(self.accelerator.device)
        self.examples = prepare(model, pairs, settings)
        self.selection = prepare(model, selection, settings) if selection is not None else None
        if settings.trainable == "all":
            model.check_layout(self.examples.groups[:4], settings.precision)
        self.ahead = batches_ahead(model, self.examples)
        self.n_steps = settings.n_steps(len(self.examples))
        if model.fresh_head and (settings.loss == "regression" or settings.regression_weight):
            self._start_at_mean_rating()
        if settings.trainable == "head" or not isinstance(model.backbone, PeftModel):  # peft sets its own flags
            model.backbone.requires_grad_(settings.trainable == "all")
        self.optimizer = torch.optim.AdamW(
            _decay_groups(model, settings.weight_decay), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
        self.scheduler = scheduler_for(settings, self.optimizer, self.n_steps)
        self.step, self.seconds, self.n_tokens = 0, 0.0, 0
        self.curves = Curves(folder)

    def _start_at_mean_rating(self) -> None:
        """A fresh regression head starts at the training mean: at this size of step a bias would crawl to it."""
        mean = torch.nanmean(self.examples.ratings.flatten(0, 1), dim=0)
        self.model.output_layer.bias.data.copy_(torch.nan_to_num(mean))

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
            progress_bar(total=self.n_steps, initial=self.step, unit="step", show=progress, leave=False) as bar,
        ):
            while self.step < self.n_steps:
                row = self._train_step(order)
                log.write(json.dumps(row) + "\n")
                log.flush()
                self.curves.add(row)
                shown = {k: f"{v:.3f}" for k, v in row.items() if "loss" in k or "accuracy" in k}
                bar.set_postfix(shown | {"tokens/s": f"{self.n_tokens / self.seconds:,.0f}"})
                bar.update()
                every = self.settings.checkpoint_every_steps
                if every and self.step % every == 0 and self.step < self.n_steps:
                    checkpoints.write(self.folder, self.model, self.optimizer, self.scheduler, self._progress())

    def _train_step(self, order: np.ndarray) -> dict[str, float]:
        start, settings = time.perf_counter(), self.settings
        indices = self._step_indices(order, self.step)
        passes = list(forward_batches(self.model, self.examples, indices, settings.token_budget))
        self._look_ahead(order, passes)
        count = n_valid(settings.loss, self.examples, indices)
        total = 0.0
        for batch in passes:
            rewards = rewards_of(self.model, self.examples, batch, settings.precision, self.ahead)
            loss = example_losses(settings, rewards, self.examples, batch).sum() / count
            self._refuse_non_finite(loss, batch)
            self.accelerator.backward(loss)
            total += float(loss.detach())
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        learning_rate = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.n_tokens += sum(self.examples.groups[index].n_tokens_shared for index in indices)
        row = {"step": self.step, "loss": total, "gradient_norm": float(norm), "learning_rate": learning_rate}
        row |= self._evaluation()
        self.seconds += time.perf_counter() - start
        return row | {"pairs": self.step * settings.pairs_per_step, "tokens": self.n_tokens, "seconds": self.seconds}

    def _evaluation(self) -> dict[str, float]:
        """What is known of the model after this step, where it is looked at."""
        row: dict[str, float] = {}
        if self.selection is not None and self._is_due(self.settings.evaluate_every_steps):
            scores = evaluate(self.model, self.selection, self.settings)
            row |= {f"selection_{name}": value for name, value in scores.items()}
        if self.benchmarks and self._is_due(self.settings.benchmark_every_steps):
            row |= watching.log_row(self.model, self.benchmarks, self.settings)
        return row

    def _is_due(self, every: int) -> bool:
        return self.step == self.n_steps or bool(every and self.step % every == 0)

    def _step_indices(self, order: np.ndarray, step: int) -> list[int]:
        size = self.settings.pairs_per_step
        return order[step * size : (step + 1) * size].tolist()

    def _look_ahead(self, order: np.ndarray, passes: list[list[int]]) -> None:
        """Have the batches of this step and of the next one made in a thread."""
        if self.examples.features is None:
            following = self._step_indices(order, self.step + 1) if self.step + 1 < self.n_steps else []
            after = forward_batches(self.model, self.examples, following, self.settings.token_budget)
            self.ahead.start([*passes, *after])

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
        last = read_log(self.folder)[-1]
        summary = {
            "n_steps": self.n_steps,
            "n_pairs": len(self.examples),
            "left_out": self.examples.left_out,
            "n_cut": self.examples.n_cut,
            "layout": self.model.layout,
            **last,
        }
        write_json(self.folder / FINISHED_FILE, summary)
        self.curves.close()
        checkpoints.remove(self.folder)

    def _progress(self) -> dict[str, float]:
        return {"step": self.step, "seconds": self.seconds, "n_tokens": self.n_tokens}

    def _resume(self) -> None:
        found = checkpoints.read_latest(self.folder, self.model, self.optimizer, self.scheduler)
        if found is not None:
            self.step, self.seconds, self.n_tokens = int(found["step"]), found["seconds"], int(found["n_tokens"])
            logger.info("continuing %s at step %d", self.folder.name, self.step)
        rows = read_log(self.folder, until_step=self.step)
        (self.folder / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))


def scheduler_for(settings: TrainSettings, optimizer: torch.optim.Optimizer, n_steps: int) -> Any:
    """Warm-up and schedule of the learning rate over `n_steps` steps."""
    return get_scheduler(
        settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=n_steps,
    )


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


def main(arguments: Sequence[str]) -> None:
    """`python -m rmlib.training run.json`: keys `source`, `settings`, and where wanted `initialise_from` (a folder),
    `folder`, `benchmarks` (see `watching.load`)."""
    from rmlib import sources

    if len(arguments) != 1:
        raise SystemExit("usage: python -m rmlib.training run.json")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    job = json.loads(Path(arguments[0]).read_text())
    if unknown := job.keys() - {"source", "settings", "initialise_from", "folder", "benchmarks"}:
        raise SystemExit(f"{arguments[0]}: unknown keys {sorted(unknown)}")
    settings = TrainSettings.from_dict(job["settings"])
    table = sources.load(job["source"])
    start = job.get("initialise_from")
    model = RewardModel.load(start) if start else create_model(settings)
    pairs, selection = tables.carve_selection(table.select(np.flatnonzero(np.array(table["split"]) == "train")), 0.1, 0)
    watched = watching.load(job.get("benchmarks", {}))
    run = train(model, pairs, settings, selection=selection, benchmarks=watched, folder=job.get("folder"))
    print(json.dumps(run.summary, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
