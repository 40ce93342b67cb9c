"""What is kept, where, and by what name: one JSON line a result, files read and written whole, hashes, folders."""

from rmlib.records.storage import (
    FIELDS,
    PACKAGES,
    SCHEMA_VERSION,
    RecordError,
    append,
    find,
    provenance,
    published,
    read,
    rows,
)

__all__ = [
    "FIELDS", "PACKAGES", "RecordError", "SCHEMA_VERSION", "append", "find", "provenance", "published", "read", "rows",
]  # fmt: skip
