"""One process or several that train one model: who takes which examples, what they tell each other, its wrapping."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import AttentionInterface

from rmlib.models import RewardModel
from rmlib.models.attention import SHARED_PREFIX
from rmlib.models.backbones import base_of, is_adapted
from rmlib.models.batches import Group
from rmlib.training.settings import TrainSettings

Result = TypeVar("Result")
PATIENCE = timedelta(hours=2)  # while the first process tokenises, or computes features, the others wait


class ProcessesError(RuntimeError):
    """Processes that were asked for and did not start, or that were started to be used in another way."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; collective methods are called by all of them, in one order."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def join(cls, asked: int | None = None) -> Processes:
        """Join the processes that the launcher started; raises ProcessesError where these are not the `asked` ones."""
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
        _refuse(state.num_processes, asked)
        return cls(state.process_index, state.num_processes, state.device)

    @staticmethod
    def leave() -> None:
        """End the communication; the processes go on alone."""
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, *values: float) -> list[float]:
        """Sums over the processes, in double precision; alone, the values as they are."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Result) -> list[Result]:
        """The value of each process, by rank; known to all."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def on_main(self, action: Callable[[], Result]) -> Result:
        """What `action` gives in the first process, for all; its error is raised in all, so that none waits in vain."""
        if self.size == 1:
            return action()
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = action()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def add_gradients(self, weights: Iterable[Tensor]) -> None:
        """Put the sum over the processes in the place of each weight's gradient; one that has none counts as zero."""
        if self.size == 1:
            return
        sent = []
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            sent.append(dist.all_reduce(weight.grad, async_op=True))
        for one in sent:
            one.wait()

    def main_first(self) -> AbstractContextManager[None]:
        """The first process goes through the block before the others, which then find what it has kept on disk."""
        return PartialState().main_process_first() if self.size > 1 else nullcontext()


ALONE = Processes()


def shares(groups: Sequence[Group], indices: Sequence[int], size: int) -> list[list[int]]:
    """The indices dealt to `size` processes, each in the order given: the longest first, to whom has fewest tokens.

    Every process computes all shares, so that nothing has to be sent. A share is empty where there are fewer indices.
    """
    load, dealt = [0] * size, [set[int]() for _ in range(size)]
    for position in sorted(range(len(indices)), key=lambda at: (-groups[indices[at]].n_tokens_shared, at)):
        rank = min(range(size), key=lambda at: (load[at], at))
        load[rank] += groups[indices[position]].n_tokens_shared
        dealt[rank].add(position)
    return [[indices[position] for position in sorted(share)] for share in dealt]


def _refuse(size: int, asked: int | None) -> None:
    """Raise ProcessesError where others than the `asked` processes started, or were to be used in another way."""
    for engine in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true":
            raise ProcessesError(
                f"accelerate is configured for {engine}, which is not used here: weights are spread by the setting "
                "sharding='full'; launch with --multi_gpu"
            )
    advice = "on a CPU start them with torchrun --nproc_per_node=N -m rmlib.training run.json"
    if asked is not None and asked != size:
        raise ProcessesError(f"{asked} processes were asked for and {size} started; {advice}")
    # accelerate names an address for processes that, without a GPU, it does not start.
    if size == 1 and {"MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"} <= os.environ.keys() and "RANK" not in os.environ:
        raise ProcessesError(f"accelerate launch was asked for several processes and started one; {advice}")


class Wrapped:
    """A model made ready for training: frozen, recomputed, compiled, replicated (DDP) or sharded (FSDP2).

    `call` gives rewards, or those of kept features. Gradients are averaged over the processes, so each has to scale its
    loss by their number.
    """

    def __init__(self, model: RewardModel, settings: TrainSettings, processes: Processes) -> None:
        if settings.trainable == "head" or not is_adapted(model.backbone):  # peft sets its own flags
            model.backbone.requires_grad_(settings.trainable == "all")
        if (pooler := getattr(base_of(model.backbone), "pooler", None)) is not None:
            pooler.requires_grad_(False)  # no reward is read from it: it never has a gradient, which DDP would wait for
        if settings.activation_checkpointing:
            old_name = model.backbone.gradient_checkpointing_enable  # until version 6 of transformers
            getattr(model.backbone, "activation_checkpointing_enable", old_name)({"use_reentrant": False})
        if settings.compile != "none":
            _compile(model, settings.compile)
        self.model, self.sharded = model, settings.sharding == "full"
        self.call: Callable[..., Tensor] = model
        if self.sharded:
            _shard(model, processes)
        elif processes.size > 1:
            self.call = DistributedDataParallel(model, broadcast_buffers=False)

    def until_last(self, last: bool) -> AbstractContextManager[object]:
        """Around each forward and backward pass of a step: replicas exchange gradients in the last one alone."""
        replicated = isinstance(self.call, DistributedDataParallel)
        return nullcontext() if last or not replicated else self.call.no_sync()  # type: ignore[attr-defined]

    def clip(self, limit: float) -> float:
        """Norm of the gradient over all weights and processes, before it is cut to `limit`."""
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def whole_state(self) -> dict[str, Tensor] | None:
        """All weights, where this process holds a shard (on the main process alone); None where the model has them."""
        if not self.sharded:
            return None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return dict(get_model_state_dict(self.model, options=options))  # type: ignore[arg-type]


def _layers(model: RewardModel) -> Iterator[nn.Module]:
    """The blocks that transformers keeps whole: the layers of a decoder or encoder."""
    names = set(getattr(base_of(model.backbone), "_no_split_modules", None) or ())
    return (module for module in base_of(model.backbone).modules() if type(module).__name__ in names)


def _compile(model: RewardModel, backend: str) -> None:
    """Compile layer by layer, for any length; attention of a packed row stays outside: its pieces vary in number."""
    attention = torch.compiler.disable(AttentionInterface()[SHARED_PREFIX])
    AttentionInterface.register(SHARED_PREFIX, attention)
    for layer in _layers(model):
        layer.compile(backend=backend, dynamic=True)


def _shard(model: RewardModel, processes: Processes) -> None:
    """Each layer gathers its weights when it is used, in fp32: autocast then does what it does in one process."""
    if not dist.is_initialized():
        raise ProcessesError("sharding='full' spreads a model over processes: start them with torchrun")
    mesh = init_device_mesh(processes.device.type, (processes.size,))
    is_empty = any(weight.is_meta for weight in model.parameters())
    whole: dict[str, Any] = model.state_dict() if processes.is_main else {}
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    # What is not a layer would stay whole after an evaluation, where no backward pass follows, and be saved so.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    if not any(processes.gather(is_empty)):
        return
    # Weights that the first process alone has read (`backbones.without_weights`) reach the others' shards.
    if is_empty:
        model.to_empty(device=processes.device)
    set_model_state_dict(model, whole, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name not in saved:  # what is computed once and not saved, as the angles of positions
            dist.broadcast(buffer, src=0)
