"""What is kept, where, and by what name: one JSON line a result, files read and written whole, hashes, folders."""

from rmlib.records.storage import FIELDS, RecordError, append, find, published, read, rows

__all__ = ["FIELDS", "RecordError", "append", "find", "published", "read", "rows"]
