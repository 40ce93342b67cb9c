"""The last layer of a decoder, computed only at the tokens where rewards are read.

The other tokens of a packed row are needed there for their keys and values alone. Queries, output projection and MLP
work token by token, so hooks hand them the end tokens and lay zeros where nobody looks: no model code is touched.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

# What transformers' decoders (Llama, Mistral, Qwen, Gemma, Phi, OLMo and others) call the parts that may skip tokens.
TOKENWISE = ("self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp")


class EndsOnly:
    """Hooks on one decoder layer; they act on shared rows and leave every other input alone."""

    def __init__(self, layer: nn.Module) -> None:
        self.ends: Int[Tensor, "sequence"] | None = None
        self.n_tokens = 0
        self.layer = layer
        self.handles = [layer.register_forward_pre_hook(self._start, with_kwargs=True)]
        for name in TOKENWISE:
            part = layer.get_submodule(name)
            self.handles += [part.register_forward_pre_hook(self._gather), part.register_forward_hook(self._scatter)]

    def remove(self) -> None:
        """Take the hooks off: every token is computed again."""
        for handle in self.handles:
            handle.remove()
        del self.layer.ends_only

    def _start(self, layer: nn.Module, inputs: tuple, keywords: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Before the layer, also where activation checkpointing runs it again: note the end tokens of this row."""
        layout = keywords.get("row_layout")
        self.ends = None if layout is None else layout.ends
        return inputs, keywords if layout is None else keywords | {"segments": layout.at_ends}

    def _gather(self, part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if self.ends is None:
            return None
        self.n_tokens = inputs[0].shape[1]
        return (inputs[0].index_select(1, self.ends), *inputs[1:])

    def _scatter(self, part: nn.Module, inputs: tuple, output: Float[Tensor, "row sequence width"]) -> Tensor | None:
        if self.ends is None:
            return None
        return scatter(output, self.ends, self.n_tokens, dim=1)


def scatter(values: Tensor, rows: Int[Tensor, "row"], n_rows: int, dim: int) -> Tensor:
    """`values` at `rows` of a tensor that is zero elsewhere."""
    shape = [*values.shape]
    shape[dim] = n_rows
    return values.new_zeros(shape).index_copy(dim, rows, values)


def cut(backbone: PreTrainedModel, config: PreTrainedConfig) -> EndsOnly | None:
    """Cut a decoder's last layer, once; None where it has other parts, or experts choose among tokens."""
    layers = getattr(backbone, "layers", None)
    experts = any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    if not layers or experts:
        return None
    names = {name for name, _ in layers[-1].named_modules()}
    if not names.issuperset(TOKENWISE):
        return None
    if not hasattr(layers[-1], "ends_only"):
        layers[-1].ends_only = EndsOnly(layers[-1])
    return layers[-1].ends_only
