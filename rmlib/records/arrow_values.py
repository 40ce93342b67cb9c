"""The values of a column of Arrow as their author had them: JSON read, keys that Arrow added to arguments left out."""

import json
import logging
from typing import Any

import pyarrow as pa

logger = logging.getLogger(__name__)


def arrow_values(table: pa.Table, name: str, origin: str) -> list[Any]:
    """The values of a column. Raises JSONDecodeError for a column of JSON that is none.

    Nulls in the arguments of calls are left out, counted and logged: Arrow gives each object the keys of all others.
    """
    values, kind = table[name].to_pylist(), str(table.schema.field(name).type)
    if "arrow.json" in kind:  # as datasets' Json keeps messages with keys of their own
        return [_from_json(value) for value in values]
    filled = sum(map(_drop_filled, values)) if "arguments: struct" in kind else 0
    if filled:
        what = "%s, column %s: left out %d nulls in arguments of calls, which parquet fills with the keys of other rows"
        logger.warning(what, origin, name, filled)
    return values


def _from_json(value: Any) -> Any:
    """What the texts of a column of JSON say, alone or in lists."""
    if isinstance(value, str):
        return json.loads(value)
    return [_from_json(item) for item in value] if isinstance(value, list) else value


def _drop_filled(value: Any, *, within: bool = False) -> int:
    """Take away keys that are null in the arguments of calls, of whatever depth, and return their number."""
    if isinstance(value, list):
        return sum(_drop_filled(item, within=within) for item in value)
    if not isinstance(value, dict):
        return 0
    filled = [key for key, item in value.items() if within and item is None]
    for key in filled:
        del value[key]
    return len(filled) + sum(_drop_filled(item, within=within or key == "arguments") for key, item in value.items())
