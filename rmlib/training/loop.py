"""The training loop: batches, rewards, loss summed over valid examples and divided by their count, step."""

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

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Int
from torch.optim.lr_scheduler import LambdaLR

from rmlib.losses import mean_rating
from rmlib.models import RewardModel
from rmlib.models.backbones import without_weights
from rmlib.records.progress import progress_bar
from rmlib.training import checkpoints, runs, watching
from rmlib.training.examples import prepare
from rmlib.training.forward import Lookahead, batch_of, evaluate, example_losses, n_valid, passes, rewards_of
from rmlib.training.parallel import Processes, Wrapped
from rmlib.training.runs import Run, Start, TrainingError
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
    identity = runs.run_identity(model.identity, pairs, settings, selection, watched)
    path = Path(folder) if folder is not None else runs.run_folder(identity)
    run = Run(path, settings)
    is_new = processes.on_main(lambda: runs.claim(path, settings.to_dict(), identity))
    if not processes.on_main(lambda: run.is_finished):
        try:
            _train(model, pairs, selection, watched, settings, path, identity, processes, progress)
        except BaseException:
            if is_new and processes.is_main:
                runs.give_up(path)
            raise
    if settings.checkpoint_every_steps:  # here, so that those of a run that was killed after its mark go too
        processes.on_main(lambda: checkpoints.remove(path))
    return run


def _train(
    model: RewardModel | Start, pairs: Dataset, selection: Dataset | None, benchmarks: Watched,
    settings: TrainSettings, folder: Path, identity: str, processes: Processes, progress: bool,
) -> None:  # fmt: skip
    """Make the model, and train it in the run's folder."""
    with without_weights(settings.sharding == "full" and not processes.is_main):
        made = model if isinstance(model, RewardModel) else model.make()
    if made.head_layers != settings.head_layers:
        raise TrainingError(
            f"the model's head has {made.head_layers} layer(s), the settings ask for {settings.head_layers}; make "
            "the model with create_model(settings), or load it with head='redraw' and head_layers"
        )
    if settings.chat and made.chat != settings.chat:
        raise TrainingError(
            f"the model was made to write conversations with {made.chat or 'nothing set'}, the settings ask for "
            f"{settings.chat}; make the model with create_model(settings), or leave these settings out"
        )
    if benchmarks:
        watching.check(benchmarks, made)
    with ExitStack() as stack:
        processes.on_main(lambda: stack.enter_context(runs.held(folder)))
        _Loop(made, pairs, selection, benchmarks, settings, folder, identity, processes).run(
            progress and processes.is_main
        )


class _Loop:
    """State of one run, so that a checkpoint can hold it."""

    def __init__(
        self, model: RewardModel, pairs: Dataset, selection: Dataset | None, benchmarks: Watched,
        settings: TrainSettings, folder: Path, identity: str, processes: Processes,
    ) -> None:  # fmt: skip
        self.settings, self.folder, self.identity, self.benchmarks = settings, folder, identity, benchmarks
        self.model, self.processes = model, processes
        if settings.sharding == "none":  # else each layer reaches its device when it is sharded: whole, it may not fit
            model.to(processes.device)
        with processes.main_first():  # features are computed once, and kept
            self.examples = prepare(model, pairs, settings)
            self.selection = prepare(model, selection, settings) if selection is not None else None
        self.n_steps = settings.n_steps(len(self.examples))
        _warn_of_warmup(settings, self.n_steps)
        if model.fresh_head and (settings.loss == "regression" or settings.regression_weight):
            # At this size of step a bias of 0 would crawl to the ratings.
            model.output_layer.bias.data.copy_(mean_rating(self.examples.ratings.flatten(0, 1)))
        self.ahead = Lookahead(partial(batch_of, model, self.examples))
        self.wrapped = Wrapped(model, settings, processes)
        if settings.trainable == "all":
            # Two passes are not worth compiling layers for; a kernel of attention has to, and is given up here if not.
            eager = torch.compiler.set_stance("force_eager") if settings.compile != "none" else nullcontext()
            with eager:
                model.check_layout(self.examples.groups[:4], settings.precision)
        self.optimizer = optimizer_for(model, settings)
        self.scheduler = scheduler_for(settings.schedule, settings.warmup_steps, self.optimizer, self.n_steps)
        self.state: checkpoints.State | None = None
        if settings.checkpoint_every_steps:
            self.state = checkpoints.State(model, self.optimizer, self.scheduler, processes, self.wrapped.sharded)
        self.step, self.seconds, self.n_tokens = 0, 0.0, 0
        self.curves = runs.Curves(folder)

    def run(self, progress: bool) -> None:
        with torch.random.fork_rng():  # the caller's generators stay as they were
            # For dropout, which differs between processes; the order of the data has a generator of its own.
            torch.manual_seed(self.settings.seed + self.processes.rank)
            if self.state and (found := checkpoints.read_latest(self.folder, self.state)):
                self.step, self.seconds, self.n_tokens = int(found["step"]), found["seconds"], int(found["n_tokens"])
                logger.info("continuing %s at step %d", self.folder.name, self.step)
            self.processes.on_main(lambda: runs.cut_log(self.folder, self.step))
            with (self.folder / runs.LOG_FILE).open("ab", buffering=0) as log:
                self._steps(log, progress)
        self._finish()

    def _steps(self, log: FileIO, progress: bool) -> None:
        self.model.train()
        size, every = self.settings.pairs_per_step, self.settings.checkpoint_every_steps
        draws = sampling_order(len(self.examples), self.n_steps * size, self.settings).reshape(self.n_steps, size)
        with progress_bar(total=self.n_steps, initial=self.step, unit="step", show=progress, leave=False) as bar:
            while self.step < self.n_steps:
                row = self._train_step(draws)
                self.processes.on_main(partial(runs.append_row, log, row, self.curves))
                shown = {k: f"{v:.3f}" for k, v in row.items() if "loss" in k or "accuracy" in k}
                bar.set_postfix(shown | {"tokens/s": f"{self.n_tokens / self.seconds:,.0f}"})
                bar.update()
                if self.state and self.step % every == 0 and self.step < self.n_steps:
                    progress_so_far = {"step": self.step, "seconds": self.seconds, "n_tokens": self.n_tokens}
                    checkpoints.write(self.folder, self.state, progress_so_far)

    def _train_step(self, draws: Int[np.ndarray, "step pair"]) -> dict[str, float]:
        start, settings = time.perf_counter(), self.settings
        indices = draws[self.step].tolist()
        own, *following = [self._passes(draw.tolist()) for draw in draws[self.step : self.step + 2]]
        if self.examples.features is None:  # a thread makes the batches of this step and of the next one
            self.ahead.start([batch for found in (own, *following) for batch, _ in found])
        loss = self._backward(own, n_valid(settings.loss, self.examples, indices))
        norm = self.wrapped.clip(settings.clip_norm)
        learning_rate = float(self.scheduler.get_last_lr()[0])
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

    def _passes(self, indices: Sequence[int]) -> list[tuple[list[int], bool]]:
        return passes(self.model, self.examples, indices, self.settings.token_budget, self.processes)

    def _backward(self, own: list[tuple[list[int], bool]], count: int) -> float:
        """Gradients of the mean loss over the step's `count` valid examples, of all processes; returns that mean.

        Where it is not finite every process stops, with the pair ids of all.
        """
        settings, own_loss, spoilt = self.settings, 0.0, list[str]()
        for number, (batch, counts) in enumerate(own, start=1):
            with self.wrapped.until_last(number == len(own)):
                call = self.wrapped.call
                rewards = rewards_of(self.model, self.examples, batch, settings.precision, self.ahead, call=call)
                loss = example_losses(settings, rewards, self.examples, batch).sum() / count * float(counts)
                (loss * self.processes.size).backward()  # replicas and shards average over the processes
            own_loss += (value := float(loss.detach()))
            if not math.isfinite(value):
                spoilt += [self.examples.pair_ids[index] for index in batch]
        (total,) = self.processes.sum(own_loss)
        if not math.isfinite(total):
            ids = [pair_id for part in self.processes.gather(spoilt) for pair_id in part]
            raise TrainingError(
                f"loss is {total} at step {self.step + 1}, pairs {ids}; lower the learning rate, or look at these "
                "pairs. The last checkpoint is kept"
            )
        return total

    def _finish(self) -> None:
        self.model.eval()
        self.model.identity, self.model.fresh_head = self.identity, False
        if self.settings.trainable == "all":
            self.model.body_identity = self.identity
        whole, examples = self.wrapped.whole_state(), self.examples
        summary = {"n_steps": self.n_steps, "n_pairs": len(examples), "left_out": examples.left_out}
        summary |= {"n_cut": examples.n_cut, "layout": self.model.layout}
        self.processes.on_main(self.curves.close)
        self.processes.on_main(lambda: runs.write_result(self.folder, self.model, summary, whole))


def _warn_of_warmup(settings: TrainSettings, n_steps: int) -> None:
    """Say of a run that ends within its warm-up how high its learning rate gets: of a single step it is 0."""
    if n_steps > settings.warmup_steps:
        return
    highest = settings.learning_rate * (n_steps - 1) / settings.warmup_steps
    logger.warning(
        "the run ends within its warm-up, after %d of %d steps: the learning rate reaches %g of %g%s; set "
        "warmup_steps below %d, or take more steps (max_steps, epochs, fewer pairs_per_step)",
        n_steps, settings.warmup_steps, highest, settings.learning_rate, "" if highest else ", so nothing is learnt",
        n_steps,
    )  # fmt: skip


def optimizer_for(model: RewardModel, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW over the weights that are trained; bitsandbytes' where 8 bits or pages are asked.

    Matrices alone decay, as in Megatron: shrinking a norm or a bias is no regularisation. bitsandbytes keeps tensors of
    fewer than 4,096 numbers in 32 bits; without a GPU its paged optimizers are not paged.
    """
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
    from bitsandbytes import optim  # slow to import, which most runs do without

    kinds = {
        "adamw_8bit": optim.AdamW8bit, "paged_adamw_8bit": optim.PagedAdamW8bit,
        "paged_adamw_32bit": optim.PagedAdamW32bit,
    }  # fmt: skip
    return kinds[settings.optimizer](groups, lr=settings.learning_rate, betas=settings.betas)


def scheduler_for(schedule: str, warmup_steps: int, optimizer: torch.optim.Optimizer, n_steps: int) -> LambdaLR:
    """The learning rate of each of `n_steps` steps: up from 0 in the warm-up, then "constant", or down to 0.

    Down in a line ("linear") or along half a cosine ("cosine"): transformers' `get_scheduler` to the bit, which is not
    called because its module imports peft and bitsandbytes, for seconds, into every process that trains.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        if schedule == "constant":
            return 1.0
        left = max(1, n_steps - warmup_steps)
        if schedule == "linear":
            return max(0.0, (n_steps - step) / left)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((step - warmup_steps) / left))))

    return LambdaLR(optimizer, factor)


def sampling_order(n_pairs: int, n_draws: int, settings: TrainSettings) -> np.ndarray:
    """Which pair each draw takes: whole epochs end to end, each shuffled from the seed unless `shuffle` is off."""
    rng = np.random.default_rng(settings.seed)
    n_epochs = -(-n_draws // n_pairs)
    epochs = [rng.permutation(n_pairs) if settings.shuffle else np.arange(n_pairs) for _ in range(n_epochs)]
    return np.concatenate(epochs)[:n_draws]
