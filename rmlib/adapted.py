"""Whether adapters sit on a backbone, asked without importing peft, which takes longer than all other imports."""

from __future__ import annotations

import sys
from typing import Any


def is_adapted(backbone: Any) -> bool:
    """Whether peft wraps this backbone: where nobody has imported peft, nothing can."""
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(backbone, peft.PeftModel)
