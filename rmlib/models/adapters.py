"""Adapters (LoRA) and 4-bit backbones: put on, merge, and turn back into plain weights.

The head stays outside: it is neither quantised nor wrapped, so it is trained and saved exactly once, in fp32.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoModel

from rmlib.models.backbones import Backbone, Network, base_of, is_adapted
from rmlib.models.interface import ModelError
from rmlib.models.network import RewardNetwork
from rmlib.records.hashing import fingerprint

Model = TypeVar("Model", bound=RewardNetwork)
Wrapped = TypeVar("Wrapped", bound=Network)


def with_adapter(network: Wrapped, lora: dict[str, Any]) -> Wrapped:
    """The network under new low-rank adapters of all linear layers; `lora` holds keywords of peft's LoraConfig."""
    from peft import LoraConfig, get_peft_model  # slow to import

    return get_peft_model(network, LoraConfig(**{"target_modules": "all-linear", **lora}))


def add(model: Model, lora: dict[str, Any], *, seed: int = 0) -> Model:
    """A new adapter on the backbone, which starts as no change; `lora` holds keywords of peft's LoraConfig.

    Returns a new model that shares head and weights with the old one; raises ModelError where there is an adapter
    already (merge it first).
    """
    if is_adapted(model.backbone):
        raise ModelError(f"{model.name} has an adapter already: merge it first")
    identity = fingerprint("adapter", model.body_identity, lora, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = with_adapter(model.backbone, lora)
    base = model.body_identity if model.body_identity != model.name else None
    return _with(model, body, fingerprint("adapter", model.identity, lora, seed), identity, base)


def merge(model: Model) -> Model:
    """The model in plain full-precision weights: its adapter added, 4-bit weights dequantised first.

    Rewards are equal to 1e-4 in fp32 (of a quantised model: to those on the dequantised weights, which are what its
    4-bit kernels multiply with). The model given stays as it was; one without adapter and quantisation is returned.
    """
    if not is_adapted(model.backbone) and not is_quantised(model.backbone):
        return model
    body = model.backbone
    plain = _dequantised(body) if is_quantised(body) else copy.deepcopy(body).float()
    plain = plain.merge_and_unload() if is_adapted(plain) else plain
    return _with(model, plain, fingerprint("merge", model.identity), fingerprint("merge", model.body_identity), None)


def is_quantised(backbone: Network) -> bool:
    """Whether the backbone's matrices are kept in 4 bits."""
    return any(type(weight).__name__ == "Params4bit" for weight in backbone.parameters())


def _dequantised(backbone: Backbone) -> Backbone:
    """The same network, adapter included, on what its 4-bit weights stand for."""
    base = base_of(backbone)
    config = copy.deepcopy(base.config)
    del config.quantization_config
    plain = AutoModel.from_config(config, dtype=torch.float32)
    plain.set_attn_implementation(base.config._attn_implementation)
    plain.load_state_dict({name: _full_weight(base, name) for name in plain.state_dict()})
    plain = plain.to(base.device).train(base.training)
    if not is_adapted(backbone):
        return plain
    from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict  # slow to import

    adapted = get_peft_model(plain, copy.deepcopy(backbone.peft_config[backbone.active_adapter]))
    set_peft_model_state_dict(adapted, get_peft_model_state_dict(backbone, save_embedding_layers=False))
    return adapted.train(base.training)


def _full_weight(base: nn.Module, name: str) -> Tensor:
    module_name, _, leaf = name.rpartition(".")
    module: Any = base.get_submodule(module_name)
    module = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    weight = getattr(module, leaf)
    if type(weight).__name__ == "Params4bit":
        from bitsandbytes.functional import dequantize_4bit  # slow to import

        weight = dequantize_4bit(weight.data, weight.quant_state)
    return weight.detach().float()


def _with(model: Model, body: Backbone, identity: str, body_identity: str, base: str | None) -> Model:
    made = type(model)(
        body, model.head, model.tokenizer, name=model.name, attributes=model.attributes, fresh_head=model.fresh_head,
        identity=identity, body_identity=body_identity, base_identity=base,
    )  # fmt: skip
    made.chat = model.chat
    return made
