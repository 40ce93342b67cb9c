"""The training loop: batches, rewards, loss summed over valid examples and divided by their count, step.

`train` runs in a process, in a notebook, or from the shell: `python -m rmlib.training run.json`. Under torchrun, with
the same file, several processes share each step, which stays the same step.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from datasets import Dataset

from rmlib import pairs as tables
from rmlib.annotations import preference_items
from rmlib.losses import mean_rating
from rmlib.models import RewardModel
from rmlib.models.backbones import without_weights
from rmlib.records import paths
from rmlib.records.hashing import fingerprint
from rmlib.records.progress import progress_bar
from rmlib.training import checkpoints, watching
from rmlib.training.examples import prepare
from rmlib.training.forward import batches_ahead, evaluate, example_losses, n_valid, passes, rewards_of
from rmlib.training.initial_model import Start
from rmlib.training.optimizer import optimizer_for, sampling_order, scheduler_for
from rmlib.training.parallel import Processes, Wrapped
from rmlib.training.runs import (
    LOG_FILE,
    Curves,
    Run,
    TrainingError,
    append_row,
    claim,
    cut_log,
    held,
    write_result,
)
from rmlib.training.settings import TrainSettings
from rmlib.training.watching import Watched

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
    the step), an over-long pair, a model with another number of head layers, a `folder` that holds another run, or one
    in which another process is training; DiskError where the disk is full.
    """
    processes, watched = Processes.join(), dict(benchmarks or {})
    identity = run_identity(model.identity, pairs, settings, selection, watched)
    path = Path(folder) if folder is not None else run_folder(identity)
    run = Run(path, settings)
    processes.on_main(lambda: claim(path, settings, identity))
    if not processes.on_main(lambda: run.is_finished):
        with without_weights(settings.sharding == "full" and not processes.is_main):
            made = model if isinstance(model, RewardModel) else model.make()
        _check_head(made, settings)
        if watched:
            watching.check(watched)
        with ExitStack() as stack:
            processes.on_main(lambda: stack.enter_context(held(path)))
            loop = _Loop(made, pairs, selection, watched, settings, path, identity, processes)
            loop.run(progress and processes.is_main)
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
    data += watching.identity(benchmarks) if benchmarks else []
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
        processes: Processes,
    ) -> None:
        self.settings, self.folder, self.identity, self.benchmarks = settings, folder, identity, benchmarks
        self.model, self.processes = model, processes
        if settings.sharding == "none":  # else each layer reaches its device when it is sharded: whole, it may not fit
            model.to(processes.device)
        with processes.main_first():  # features are computed once, and kept
            self.examples = prepare(model, pairs, settings)
            self.selection = prepare(model, selection, settings) if selection is not None else None
        self.n_steps = settings.n_steps(len(self.examples))
        if model.fresh_head and (settings.loss == "regression" or settings.regression_weight):
            # At this size of step a bias of 0 would crawl to the ratings.
            model.output_layer.bias.data.copy_(mean_rating(self.examples.ratings.flatten(0, 1)))
        self.ahead = batches_ahead(model, self.examples)
        self.wrapped = Wrapped(model, settings, processes)
        if settings.trainable == "all":
            # Two passes are not worth compiling layers for; a kernel of attention has to, and is given up here if not.
            eager = torch.compiler.set_stance("force_eager") if settings.compile != "none" else nullcontext()
            with eager:
                model.check_layout(self.examples.groups[:4], settings.precision)
        self.optimizer = optimizer_for(model, settings)
        self.scheduler = scheduler_for(settings.schedule, settings.warmup_steps, self.optimizer, self.n_steps)
        self.state = checkpoints.State(model, self.optimizer, self.scheduler, processes, self.wrapped.sharded)
        self.step, self.seconds, self.n_tokens = 0, 0.0, 0
        self.curves = Curves(folder)

    def run(self, progress: bool) -> None:
        with torch.random.fork_rng():  # the caller's generators stay as they were
            # For dropout, which differs between processes; the order of the data has a generator of its own.
            torch.manual_seed(self.settings.seed + self.processes.rank)
            self._resume()
            with (self.folder / LOG_FILE).open("ab", buffering=0) as log:
                self._steps(log, progress)
        self._finish()

    def _steps(self, log: FileIO, progress: bool) -> None:
        self.model.train()
        order = sampling_order(len(self.examples), self.n_steps * self.settings.pairs_per_step, self.settings)
        with progress_bar(total=self.n_steps, initial=self.step, unit="step", show=progress, leave=False) as bar:
            while self.step < self.n_steps:
                row = self._train_step(order)
                self.processes.on_main(partial(self._write_row, log, row))
                shown = {k: f"{v:.3f}" for k, v in row.items() if "loss" in k or "accuracy" in k}
                bar.set_postfix(shown | {"tokens/s": f"{self.n_tokens / self.seconds:,.0f}"})
                bar.update()
                every = self.settings.checkpoint_every_steps
                if every and self.step % every == 0 and self.step < self.n_steps:
                    progress_so_far = {"step": self.step, "seconds": self.seconds, "n_tokens": self.n_tokens}
                    checkpoints.write(self.folder, self.state, progress_so_far)

    def _train_step(self, order: np.ndarray) -> dict[str, float]:
        start, settings = time.perf_counter(), self.settings
        indices = self._step_indices(order, self.step)
        own = self._passes(indices)
        self._look_ahead(order, own)
        loss = self._backward(own, n_valid(settings.loss, self.examples, indices))
        norm = self.wrapped.clip(settings.clip_norm)
        learning_rate = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.step += 1
        self.n_tokens += sum(self.examples.groups[index].n_tokens_shared for index in indices)
        row = {"step": self.step, "loss": loss, "gradient_norm": norm, "learning_rate": learning_rate}
        row |= self._evaluation()
        self.seconds += time.perf_counter() - start
        return row | {"pairs": self.step * settings.pairs_per_step, "tokens": self.n_tokens, "seconds": self.seconds}

    def _evaluation(self) -> dict[str, float]:
        """What is known of the model after this step, where it is looked at."""
        row: dict[str, float] = {}
        if self.selection is not None and self._is_due(self.settings.evaluate_every_steps):
            scores = evaluate(self.model, self.selection, self.settings, self.processes)
            row |= {f"selection_{name}": value for name, value in scores.items()}
        if self.benchmarks and self._is_due(self.settings.benchmark_every_steps):
            # By every process, all items: of sharded weights each has to take part, of replicas each would only wait.
            row |= watching.log_row(self.model, self.benchmarks, self.settings)
        return row

    def _is_due(self, every: int) -> bool:
        return self.step == self.n_steps or bool(every and self.step % every == 0)

    def _step_indices(self, order: np.ndarray, step: int) -> list[int]:
        size = self.settings.pairs_per_step
        return order[step * size : (step + 1) * size].tolist()

    def _passes(self, indices: Sequence[int]) -> list[tuple[list[int], bool]]:
        return list(passes(self.model, self.examples, indices, self.settings.token_budget, self.processes))

    def _look_ahead(self, order: np.ndarray, own: list[tuple[list[int], bool]]) -> None:
        """Have the batches of this step and of the next one made in a thread."""
        if self.examples.features is None:
            more = self.step + 1 < self.n_steps
            following = self._passes(self._step_indices(order, self.step + 1)) if more else []
            self.ahead.start([batch for batch, _ in [*own, *following]])

    def _backward(self, own: list[tuple[list[int], bool]], count: int) -> float:
        """Gradients of the mean loss over the step's `count` valid examples, of all processes; returns that mean."""
        settings, total, spoilt = self.settings, 0.0, list[str]()
        for number, (batch, counts) in enumerate(own, start=1):
            with self.wrapped.until_last(number == len(own)):
                call = self.wrapped.call
                rewards = rewards_of(self.model, self.examples, batch, settings.precision, self.ahead, call=call)
                loss = example_losses(settings, rewards, self.examples, batch).sum() / count * float(counts)
                (loss * self.processes.size).backward()  # replicas and shards average over the processes
            total += (value := float(loss.detach()))
            if not math.isfinite(value):
                spoilt += [self.examples.pair_ids[index] for index in batch]
        return self._refuse_non_finite(total, spoilt)

    def _refuse_non_finite(self, own: float, spoilt: list[str]) -> float:
        """The loss of all processes; where it is not finite every one of them stops, with the pair ids of all."""
        (total,) = self.processes.sum(own)
        if math.isfinite(total):
            return total
        ids = [pair_id for part in self.processes.gather(spoilt) for pair_id in part]
        raise TrainingError(
            f"loss is {total} at step {self.step + 1}, pairs {ids}; lower the learning rate, or look at these pairs. "
            "The last checkpoint is kept"
        )

    def _write_row(self, log: FileIO, row: dict[str, float]) -> None:
        append_row(log, row)
        self.curves.add(row)

    def _finish(self) -> None:
        self.model.eval()
        self.model.identity, self.model.fresh_head = self.identity, False
        if self.settings.trainable == "all":
            self.model.body_identity = self.identity
        whole = self.wrapped.whole_state()
        summary = {
            "n_steps": self.n_steps,
            "n_pairs": len(self.examples),
            "left_out": self.examples.left_out,
            "n_cut": self.examples.n_cut,
            "layout": self.model.layout,
        }
        self.processes.on_main(self.curves.close)
        self.processes.on_main(lambda: write_result(self.folder, self.model, summary, whole))
        self.processes.on_main(lambda: checkpoints.remove(self.folder))

    def _resume(self) -> None:
        found = checkpoints.read_latest(self.folder, self.state)
        if found is not None:
            self.step, self.seconds, self.n_tokens = int(found["step"]), found["seconds"], int(found["n_tokens"])
            logger.info("continuing %s at step %d", self.folder.name, self.step)
        self.processes.on_main(lambda: cut_log(self.folder, self.step))
