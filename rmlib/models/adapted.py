"""Adapters on a backbone: whether they are there, and put on; peft is imported only where it is needed, being slow."""

from __future__ import annotations

import sys
from typing import Any


def is_adapted(backbone: Any) -> bool:
    """Whether peft wraps this backbone: where nobody has imported peft, nothing can."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(backbone, peft.PeftModel)


def with_adapter(backbone: Any, lora: dict[str, Any]) -> Any:
    """The backbone under new low-rank adapters of all linear layers; `lora` holds keywords of peft's LoraConfig."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(backbone, LoraConfig(**{"target_modules": "all-linear", **lora}))


def base_of(backbone: Any) -> Any:
    """The transformers model itself, beneath an adapter if there is one."""
    return backbone.get_base_model() if is_adapted(backbone) else backbone
