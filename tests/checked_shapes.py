"""The type checker that tests put on every function of rmlib: jaxtyping's shapes and dtypes, and nothing else.

Other annotations are mypy's business; checked at run time they would refuse the doubles that tests pass in.
"""

import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from beartype import beartype

_SHAPED = re.compile(r"\b(Float|Int|Bool|Shaped|Num|UInt8|Integer)\[")


def checker(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its shaped annotations checked by beartype at every call; as it is where it has none."""
    names = vars(sys.modules[function.__module__]) if function.__module__ in sys.modules else {}
    hints = getattr(function, "__annotations__", {})
    shaped = {name: hint for name, hint in hints.items() if _is_shaped(str(hint), names)}
    if not shaped:
        return function
    function.__annotations__ = shaped
    return beartype(function)


def _is_shaped(hint: str, names: Mapping[str, Any]) -> bool:
    """Whether an annotation names a shape, by itself or by an alias of its module ("PerToken")."""
    aliases = (str(names[word]) for word in re.findall(r"\w+", hint) if word in names)
    return any(_SHAPED.search(text) for text in (hint, *aliases))
