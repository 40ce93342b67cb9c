"""Whether adapters sit on a backbone and what lies beneath, asked without importing peft, which is slow to import."""

from __future__ import annotations

import sys
from typing import Any


def is_adapted(backbone: Any) -> bool:
    """Whether peft wraps this backbone: where nobody has imported peft, nothing can."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(backbone, peft.PeftModel)


def base_of(backbone: Any) -> Any:
    """The transformers model itself, beneath an adapter if there is one."""
    return backbone.get_base_model() if is_adapted(backbone) else backbone
