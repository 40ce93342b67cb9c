"""A model made ready for training: what is frozen, recomputed, compiled, replicated (DDP) or sharded (FSDP2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import AttentionInterface

from rmlib.models import RewardModel
from rmlib.models.attention import SHARED_PREFIX
from rmlib.models.backbones import base_of, is_adapted
from rmlib.training.parallel import Processes, ProcessesError
from rmlib.training.settings import TrainSettings


class Wrapped:
    """A model that is trained by one process or several; `call` gives rewards, or those of kept features.

    Gradients are averaged over the processes, so each has to scale its loss by their number.
    """

    def __init__(self, model: RewardModel, settings: TrainSettings, processes: Processes) -> None:
        _freeze(model, settings)
        if settings.activation_checkpointing:
            _recompute_activations(model)
        if settings.compile != "none":
            _compile(model, settings.compile)
        self.model, self.sharded = model, settings.sharding == "full"
        self.call: Callable[..., Tensor] = model
        if self.sharded:
            _shard(model, processes)
        elif processes.size > 1:
            self.call = DistributedDataParallel(model, broadcast_buffers=False)

    def until_last(self, last: bool) -> AbstractContextManager[Any]:
        """Around each forward and backward pass of a step: replicas exchange gradients in the last one alone."""
        replicated = isinstance(self.call, DistributedDataParallel)
        return nullcontext() if last or not replicated else self.call.no_sync()  # type: ignore[attr-defined]

    def clip(self, limit: float) -> float:
        """Norm of the gradient over all weights and processes, before it is cut to `limit`."""
        norm: Any = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def whole_state(self) -> dict[str, Tensor] | None:
        """All weights, where this process holds a shard (on the main process alone); None where the model has them."""
        if not self.sharded:
            return None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        whole: dict[str, Any] = get_model_state_dict(self.model, options=options)
        return whole


def _freeze(model: RewardModel, settings: TrainSettings) -> None:
    if settings.trainable == "head" or not is_adapted(model.backbone):  # peft sets its own flags
        model.backbone.requires_grad_(settings.trainable == "all")
    pooler = getattr(base_of(model.backbone), "pooler", None)
    if pooler is not None:  # no reward is read from it: it never has a gradient, which DDP would wait for
        pooler.requires_grad_(False)


def _recompute_activations(model: RewardModel) -> None:
    old_name = model.backbone.gradient_checkpointing_enable  # until version 6 of transformers
    getattr(model.backbone, "activation_checkpointing_enable", old_name)({"use_reentrant": False})


def _layers(model: RewardModel) -> Iterator[nn.Module]:
    """The blocks that transformers keeps whole: the layers of a decoder or encoder."""
    names = set(getattr(base_of(model.backbone), "_no_split_modules", None) or ())
    return (module for module in base_of(model.backbone).modules() if type(module).__name__ in names)


def _compile(model: RewardModel, backend: str) -> None:
    """Compile layer by layer, for any length; attention of a packed row stays outside: its pieces vary in number."""
    attention: Any = torch.compiler.disable(AttentionInterface()[SHARED_PREFIX])
    AttentionInterface.register(SHARED_PREFIX, attention)
    for layer in _layers(model):
        layer.compile(backend=backend, dynamic=True)


def _shard(model: RewardModel, processes: Processes) -> None:
    """Each layer gathers its weights when it is used, in fp32: autocast then does what it does in one process."""
    if not torch.distributed.is_initialized():
        raise ProcessesError("sharding='full' spreads a model over processes: start them with torchrun")
    mesh = init_device_mesh(processes.device.type, (processes.size,))
    is_empty = any(weight.is_meta for weight in model.parameters())
    whole: dict[str, Any] = model.state_dict() if processes.is_main else {}
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    # What is not a layer would stay whole after an evaluation, where no backward pass follows, and be saved so.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    if any(processes.gather(is_empty)):
        _fill_from_main(model, whole, processes, is_empty)


def _fill_from_main(model: RewardModel, whole: dict[str, Any], processes: Processes, is_empty: bool) -> None:
    """Weights that the first process alone has read (`backbones.without_weights`) reach the others' shards."""
    if is_empty:
        model.to_empty(device=processes.device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole, options=options)
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name not in saved:  # what is computed once and not saved, as the angles of positions
            torch.distributed.broadcast(buffer, src=0)
