"""What a training step keeps in memory, counted before it is run: shapes without numbers, on any machine.

The model is built of fake tensors, which have shapes and no content, and a forward pass over a packed batch says what
autograd would keep for the backward pass. Layers are alike, so two and three of them tell of eighty.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModel, PreTrainedConfig

from rmlib.models import backbones, batches
from rmlib.models.attention import SHARED_PREFIX, backend_for, last_layer


class PlanningError(ValueError):
    """A backbone whose shape cannot be known here, or whose step cannot be counted."""


@dataclass(frozen=True)
class Weights:
    """Numbers of a decoder's weights, without a language-model head."""

    total: int
    linear: int  # in matrices of the layers: what a token is multiplied with, and what quantisation and LoRA work on
    widths: int  # sum over those matrices of input and output width: LoRA adds rank times this
    layer: int  # of one layer
    embedding: int


def weights_of(config: PreTrainedConfig) -> Weights:
    """Counted on a model of two and of three layers on the meta device, and drawn out to all layers.

    Raises PlanningError for what is no decoder with `layers`.
    """
    if backbones.kind_of(config) != "decoder":
        raise PlanningError(f"{config.model_type} is an encoder; steps are counted for decoders alone")
    two, three = (_counted(config, n_layers) for n_layers in (2, 3))
    n_more = config.num_hidden_layers - 2
    drawn = {name: value + n_more * (three[name] - value) for name, value in two.items()}
    return Weights(**drawn, layer=three["total"] - two["total"])


def _counted(config: PreTrainedConfig, n_layers: int) -> dict[str, int]:
    with torch.device("meta"):
        backbone = AutoModel.from_config(_with_layers(config, n_layers))
    matrices = [part.weight for part in backbone.layers.modules() if isinstance(part, nn.Linear)]
    return {
        "total": sum(weight.numel() for weight in backbone.parameters()),
        "linear": sum(weight.numel() for weight in matrices),
        "widths": sum(sum(weight.shape) for weight in matrices),
        "embedding": backbone.get_input_embeddings().weight.numel(),
    }


def activation_bytes(
    config: PreTrainedConfig, groups: Sequence[batches.Group], precision: str, *, recompute: bool = False
) -> int:
    """Bytes that the forward pass of a packed batch keeps for the backward pass, beside the weights.

    With `recompute` (activation checkpointing) these are the input of every layer, and all that one layer keeps while
    the backward pass stands at it.
    """
    two, three = (_kept_by_fake(config, n_layers, groups, precision) for n_layers in (2, 3))
    layer = three - two
    if not recompute:
        return two + (config.num_hidden_layers - 2) * layer
    layer_input = sum(item.n_tokens_shared for item in groups) * config.hidden_size * 4  # the residual stream is fp32
    return config.num_hidden_layers * layer_input + layer


def _kept_by_fake(config: PreTrainedConfig, n_layers: int, groups: Sequence[batches.Group], precision: str) -> int:
    batch = batches.collate_shared(groups, backend_for(torch.device("cpu"), config))
    with FakeTensorMode(allow_non_fake_inputs=True):
        backbone = AutoModel.from_config(_with_layers(config, n_layers), attn_implementation=SHARED_PREFIX).train()
        last_layer.cut(backbone, config)
        kept = kept_bytes(partial(forward, backbone, batch, precision), backbone)
    # Autocast keeps a copy of every matrix too, but no activation is one.
    matrices = [part.weight.numel() for part in backbone.modules() if isinstance(part, nn.Linear)]
    return kept - (sum(matrices) * torch.bfloat16.itemsize if precision == "bf16" else 0)


def forward(backbone: nn.Module, batch: batches.SharedBatch, precision: str) -> Tensor:
    """States at the end tokens, as `RewardModel.pool` computes them."""
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        output = backbone(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=torch.zeros(1, 1, 1, 1),
            segments=batch.layout.everywhere,
            row_layout=batch.layout,
            use_cache=False,
        )
    return output.last_hidden_state[0].index_select(0, batch.ends)


def kept_bytes(function: Callable[[], Tensor], model: nn.Module) -> int:
    """Bytes of the distinct storages that autograd keeps for a function's backward pass, the model's weights apart."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in weights)


def _with_layers(config: PreTrainedConfig, n_layers: int) -> PreTrainedConfig:
    changed = copy.deepcopy(config)
    changed.num_hidden_layers = n_layers
    if getattr(config, "layer_types", None):
        changed.layer_types = (n_layers * [*config.layer_types])[:n_layers]
    return changed
