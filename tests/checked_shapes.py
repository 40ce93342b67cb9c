"""The type checker that tests put on every function of rmlib: jaxtyping's shapes and dtypes, and nothing else.

Other annotations are mypy's business; checked at run time they would refuse the doubles that tests pass in.
"""

import re
from collections.abc import Callable
from typing import Any

from beartype import beartype

_SHAPED = re.compile(r"\b(Float|Int|Bool|Shaped|Num|UInt8|Integer)\[")


def checker(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its shaped annotations checked by beartype at every call; as it is where it has none."""
    hints = getattr(function, "__annotations__", {})
    shaped = {name: hint for name, hint in hints.items() if _SHAPED.search(str(hint))}
    if not shaped:
        return function
    function.__annotations__ = shaped
    return beartype(function)
