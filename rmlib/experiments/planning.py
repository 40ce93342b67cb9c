"""What a run will take, before anything is downloaded: weights, memory of each GPU by part, operations, hours.

Shapes come from a config: of the embedded backbone, a folder, a model that is already here, or `KNOWN`. Weights are
counted, activations follow from the shape, hours from a stated share of the GPUs' peak. Nothing is measured on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, LlamaConfig, PreTrainedConfig

from rmlib.experiments.presets import PRESETS, STAGES
from rmlib.models import backbones
from rmlib.training.settings import TrainSettings

# Shapes as published in the model's config.json; vocabulary and positions of Llama 3.1.
KNOWN: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.1-70B-Instruct": {
        "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
        "intermediate_size": 28672, "vocab_size": 128256, "max_position_embeddings": 131072,
    }
}  # fmt: skip
NF4_BYTES = 0.5 + 0.127 / 8  # a weight, and its share of the doubly quantised constants (QLoRA, arXiv 2305.14314, §3)
ADAM_BYTES, FP32, BF16, GB = 8, 4, 2, 1e9
PROMPT, RESPONSES = 150, (365, 405)  # tokens of a typical pair: HelpSteer2's means, in Llama-like tokens


class PlanningError(ValueError):
    """A backbone whose shape cannot be known here, or whose step cannot be counted."""


@dataclass(frozen=True)
class Hardware:
    """GPUs of one kind; `tflops` is the dense bf16 peak of one."""

    nodes: int = 1
    gpus_per_node: int = 8
    memory_gb: float = 80.0
    tflops: float = 989.0  # H100 SXM, dense, as the vendor states it
    name: str = "H100"

    @property
    def n_gpus(self) -> int:
        return self.nodes * self.gpus_per_node


@dataclass(frozen=True)
class Plan:
    """What a run takes on some GPUs; weights are sharded over all of them (FSDP)."""

    settings: TrainSettings
    hardware: Hardware
    n_steps: int
    utilisation: float  # share of the GPUs' peak
    config: PreTrainedConfig
    weights: Weights

    @property
    def tokens(self) -> int:
        """Of the whole run, each prompt once."""
        return self.n_steps * self.settings.pairs_per_step * (PROMPT + sum(RESPONSES))

    @property
    def trained(self) -> int:
        """The number of trained weights."""
        head = (self.config.hidden_size + 1) * len(self.settings.attributes)
        if self.settings.trainable == "head":
            return head
        rank = self.settings.lora_rank
        return head + (rank * self.weights.widths if rank else self.weights.total)

    @property
    def memory_gb(self) -> dict[str, float]:
        """GB of one GPU by part."""
        weights, shards = self.weights, self.hardware.n_gpus
        stored: float = weights.total * FP32
        if self.settings.quantization == "nf4":
            stored = weights.linear * NF4_BYTES + (weights.total - weights.linear) * FP32
        if self.settings.lora_rank:
            stored += self.trained * FP32
        parts = {
            "weights": stored / shards,
            "gradients": self.trained * FP32 / shards,
            "optimizer": self.trained * ADAM_BYTES / shards,
            # Layer by layer the weights come together in bf16, two layers at a time, or the embedding.
            "gathered weights": max(2 * weights.layer, weights.embedding) * BF16 if shards > 1 else 0,
            "activations": self._activations(),
        }
        return {name: value / GB for name, value in parts.items()}

    def _activations(self) -> float:
        """Of a pass over `token_budget` tokens, or all that a GPU gets of a step, at the longest texts allowed."""
        settings, typical = self.settings, PROMPT + max(RESPONSES)
        if settings.trainable == "head":
            return 0.0
        scale = max(1.0, (settings.max_length or typical) / typical)
        pair = sum(int(length * scale) for length in (PROMPT, *RESPONSES))
        pairs_a_gpu = math.ceil(settings.pairs_per_step / self.hardware.n_gpus)
        tokens = max(pair, min(settings.token_budget, pairs_a_gpu * pair))
        return activation_bytes(self.config, tokens, settings.precision, settings.activation_checkpointing)

    @property
    def total_gb(self) -> float:
        return sum(self.memory_gb.values())

    @property
    def fits(self) -> bool:
        """Whether the parts together leave a tenth of the memory to the allocator and the libraries."""
        return self.total_gb <= 0.9 * self.hardware.memory_gb

    @property
    def petaflop(self) -> float:
        """Operations of the whole run, in 10^15: for each token two a weight and pass, and the attention's share.

        Passes: forward, backward to the inputs, backward to the weights that are trained, and forward again with
        `activation_checkpointing`. A frozen backbone is passed through once.
        """
        if self.settings.trainable == "head":
            return self.tokens * 2 * self.weights.linear / max(1.0, self.settings.epochs) / 1e15
        to_weights, again = 0 if self.settings.lora_rank else 1, self.settings.activation_checkpointing
        linear = 2 * self.weights.linear * (2 + to_weights + again)
        scores = PROMPT**2 / 2 + sum(own * (PROMPT + own / 2) for own in RESPONSES)
        width = self.config.num_hidden_layers * self.config.num_attention_heads * _head_dim(self.config)
        attention = 4 * width * scores * (3 + again) / (PROMPT + sum(RESPONSES))
        return self.tokens * (linear + attention) / 1e15

    @property
    def hours(self) -> float:
        """At `utilisation` of the peak."""
        return self.petaflop * 1e3 / (self.hardware.n_gpus * self.hardware.tflops * self.utilisation) / 3600


def plan(settings: TrainSettings, hardware: Hardware, *, n_pairs: int | None = None, utilisation: float = 0.4) -> Plan:
    """The plan of a run; `n_pairs` is needed unless the settings say `max_steps`.

    Raises PlanningError for a backbone whose config is not on this machine, or without a number of steps.
    """
    if n_pairs is None and settings.max_steps is None:
        raise PlanningError("how many steps? give n_pairs, or settings with max_steps")
    config = config_of(settings.backbone)
    return Plan(settings, hardware, settings.n_steps(n_pairs or 1), utilisation, config, weights_of(config))


def config_of(backbone: str) -> PreTrainedConfig:
    """The config of a backbone, without a download; raises PlanningError where that is impossible."""
    if backbone in KNOWN:
        return LlamaConfig(**KNOWN[backbone])
    try:
        return AutoConfig.from_pretrained(backbones.folder_of(backbone), local_files_only=True)
    except (OSError, ValueError) as error:
        raise PlanningError(
            f"the shape of {backbone} is not on this machine; fetch its config.json alone and name its folder as the "
            f"backbone, or use one of {', '.join(KNOWN)}"
        ) from error


@dataclass(frozen=True)
class Weights:
    """Numbers of a decoder's weights, without a language-model head."""

    total: int
    linear: int  # in matrices of the layers: what a token is multiplied with, and what quantisation and LoRA work on
    widths: int  # sum over those matrices of input and output width: LoRA adds rank times this
    layer: int  # of one layer
    embedding: int


def weights_of(config: PreTrainedConfig) -> Weights:
    """Counted on a model without numbers (the meta device); raises PlanningError for what is no decoder."""
    if backbones.kind_of(config) != "decoder":
        raise PlanningError(f"{config.model_type} is an encoder; steps are counted for decoders alone")
    with torch.device("meta"):
        backbone = AutoModel.from_config(config)
    matrices = [part.weight for part in backbone.layers.modules() if isinstance(part, nn.Linear)]
    return Weights(
        total=sum(weight.numel() for weight in backbone.parameters()),
        linear=sum(weight.numel() for weight in matrices),
        widths=sum(sum(weight.shape) for weight in matrices),
        layer=sum(weight.numel() for weight in backbone.layers[0].parameters()),
        embedding=backbone.get_input_embeddings().weight.numel(),
    )


def activation_bytes(config: PreTrainedConfig, n_tokens: int, precision: str, recompute: bool) -> int:
    """Bytes that a forward pass over packed rows keeps for the backward pass, beside the weights.

    Of decoders whose layer is two RMS norms, attention that keeps no scores, and a gated MLP, as Llama's and Qwen's.
    With `recompute` (activation checkpointing) these are the input of every layer, and all that one layer keeps while
    the backward pass stands at it.
    """
    half = precision == "bf16"
    number, hidden = BF16 if half else FP32, config.hidden_size
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    # Norms are computed in fp32; each keeps its input, the normalised states, and one number to divide by.
    norms = 2 * (2 * hidden + 1) * FP32
    # Queries and output, keys and values, and for each head the logarithm of its normaliser.
    attention = 2 * (heads + key_heads) * _head_dim(config) * number + heads * FP32
    # What is normalised is read by the matrices of attention and of the MLP: autocast makes a copy for each of them.
    read_by_attention, read_by_mlp = (3, 2) if half else (1, 1)
    mlp = read_by_mlp * hidden * number + 4 * config.intermediate_size * number
    layer = norms + read_by_attention * hidden * number + attention + mlp
    if recompute:  # the residual stream is fp32
        return n_tokens * (config.num_hidden_layers * hidden * FP32 + layer)
    # The last layer computes queries and its MLP at the end tokens alone; the final norm takes its second's place.
    last = layer - mlp - (hidden * number if half else 0)
    positions = 2 * _head_dim(config) * FP32 + 8  # sines and cosines, and the token itself
    return n_tokens * ((config.num_hidden_layers - 1) * layer + last + positions)


def _head_dim(config: PreTrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def fitting(hardware: Hardware) -> pd.DataFrame:
    """Which presets fit with recomputation, on HelpSteer2's 7,118 pairs: one row for each, largest stage.

    A shape may be unknown here.
    """
    rows: list[dict[str, Any]] = []
    for preset in (preset.change(activation_checkpointing=True) for preset in PRESETS.values()):
        try:
            made = [plan(getattr(preset, stage), hardware, n_pairs=7118) for stage in STAGES]
        except PlanningError as error:
            rows.append({"preset": preset.name, "backbone": preset.backbone, "fits": "unknown", "why": str(error)})
            continue
        largest = max(made, key=lambda one: one.total_gb)
        rows.append({"preset": preset.name, "backbone": preset.backbone, "fits": "yes" if largest.fits else "no"})
        rows[-1] |= {"GB a GPU": largest.total_gb, "hours": sum(one.hours for one in made), "why": ""}
    return pd.DataFrame(rows)
