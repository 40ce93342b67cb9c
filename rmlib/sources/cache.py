"""Tables of pairs kept on disk, so that files that have not changed are read and joined once.

An entry is a folder below `paths.runs_dir()/"sources"`. It may be deleted at any time: the next load makes it again.
"""

import hashlib
import json
import logging
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import Dataset, DatasetInfo, Features

from rmlib.records import paths as folders
from rmlib.records.files import sha256
from rmlib.records.hashing import canonical_json, hash_of_code

logger = logging.getLogger(__name__)

_TABLE, _CHECKSUM = "pairs.arrow", "sha256"
_OWN = b"rmlib"  # our key in the metadata of the Arrow schema


class Message(NamedTuple):
    """What making a table logged, to be logged again whenever it is taken from the cache."""

    logger: str
    level: int
    text: str


def cached(name: str, paths: Iterable[Path], make: Callable[[], Dataset], **options: Any) -> Dataset:
    """The table that `make()` returns, kept on disk and memory-mapped from there when asked for again.

    The entry is found by the loader's `name` (its module or package in rmlib.sources), the names and contents of all
    files in `paths`, the `options` (anything JSON has), and the code that makes tables. Warnings of the first load are
    repeated. A broken entry is made again; where nothing can be written, a warning says so. Of the table's info
    the features and the description are kept. Raises what `make` raises, and DataError for a file that cannot be read.
    """
    inputs = list(paths)
    key = _key(name, inputs, options)
    folder = folders.runs_dir() / "sources" / key
    kept = _read(folder, key)
    if kept is not None:
        pairs, messages = kept
        for message in messages:
            logging.getLogger(message.logger).log(message.level, "%s", message.text)
        return pairs
    pairs, messages = _made(make)
    # Messages that a logger's level suppressed are unknown, and files may have changed while they were read.
    if logger.isEnabledFor(logging.WARNING) and _key(name, inputs, options) == key:
        _write(folder, pairs, messages)
    return pairs


class _Collector(logging.Handler):
    """Keeps what one thread logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.thread = threading.get_ident()
        self.messages: list[Message] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append(Message(record.name, record.levelno, record.getMessage()))


def _made(make: Callable[[], Dataset]) -> tuple[Dataset, list[Message]]:
    collector = _Collector()
    package = logging.getLogger(__package__.partition(".")[0])
    # The collector counts as a handler: without another one, warnings would no longer reach the last resort, stderr.
    shown = [] if package.hasHandlers() or logging.lastResort is None else [logging.lastResort]
    for handler in (collector, *shown):
        package.addHandler(handler)
    try:
        return make(), collector.messages
    finally:
        for handler in (collector, *shown):
            package.removeHandler(handler)


def _key(name: str, inputs: list[Path], options: dict[str, Any]) -> str:
    files = [[path.name, sha256(path)] for path in inputs]
    asked = canonical_json({"name": name, "files": files, "options": options, "code": hash_of_code("pairs", "sources")})
    return f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:32]}"


def _read(folder: Path, key: str) -> tuple[Dataset, list[Message]] | None:
    try:
        if not folder.is_dir():
            return None
        if sha256(folder / _TABLE) != (folder / _CHECKSUM).read_text():
            raise ValueError("its checksum differs")
        with pa.memory_map(str(folder / _TABLE)) as source:
            table = pa.ipc.open_stream(source).read_all()
        own = json.loads(table.schema.metadata[_OWN])
        info = DatasetInfo(features=Features.from_arrow_schema(table.schema), description=own["description"])
        messages = [Message(*message) for message in own["messages"]]
        table = table.replace_schema_metadata(info.features.arrow_schema.metadata)
        return Dataset(table, info, fingerprint=key), messages
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        logger.warning("%s: broken cache entry discarded, the table is made again (%s)", folder.name, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _write(folder: Path, pairs: Dataset, messages: list[Message]) -> None:
    """Write an entry under a name of its own, then rename it: another process sees all of it or nothing."""
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    own = canonical_json({"description": pairs.info.description, "messages": messages})
    try:
        temporary.mkdir(parents=True)
        table = pairs.with_format("arrow")[:]
        table = table.replace_schema_metadata({**pairs.features.arrow_schema.metadata, _OWN: own.encode()})
        with pa.OSFile(str(temporary / _TABLE), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        (temporary / _CHECKSUM).write_text(sha256(temporary / _TABLE))
        temporary.rename(folder)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if not folder.is_dir():  # else another process was first
            logger.warning("the table is not kept, so the next load takes as long (%s)", error)
