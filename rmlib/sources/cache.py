"""Tables of pairs kept on disk, so that files that have not changed are read and joined once.

An entry is a folder below `paths.runs_dir()/"sources"`. It may be deleted at any time: the next load makes it again.
"""

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset

from rmlib.records import paths
from rmlib.records.files import sha256, written_whole
from rmlib.records.hashing import canonical_json, fingerprint, hash_of_code

logger = logging.getLogger(__name__)

_TABLE, _ABOUT = "pairs.arrow", "about.json"


def cached(name: str, files: Iterable[Path], make: Callable[[], Dataset], **options: Any) -> Dataset:
    """The table that `make()` returns, kept on disk and memory-mapped from there when asked for again.

    The entry is found by the loader's `name`, the names and contents of all `files`, the `options` (anything JSON has),
    and the code that makes tables. Warnings of the first load are repeated. A broken entry is made again; where nothing
    can be written, a warning says so. Of the table's info the features and the description are kept. Raises what `make`
    raises, and DataError for a file that cannot be read.
    """
    inputs = list(files)
    key = _key(name, inputs, options)
    folder = paths.runs_dir() / "sources" / key
    kept = _read(folder)
    if kept is not None:
        return kept
    package = logging.getLogger(__package__.partition(".")[0])
    collector = _Collector(alone=not package.hasHandlers())
    package.addHandler(collector)
    try:
        pairs = make()
    finally:
        package.removeHandler(collector)
    # Messages that a logger's level suppressed are unknown, and files may have changed while they were read.
    if logger.isEnabledFor(logging.WARNING) and _key(name, inputs, options) == key:
        _write(folder, pairs, collector.messages)
    return pairs


class _Collector(logging.Handler):
    """Keeps the warnings of one thread. Where it is the only handler it shows them too, as logging does without one."""

    def __init__(self, *, alone: bool) -> None:
        super().__init__(logging.WARNING)
        self.thread, self.alone = threading.get_ident(), alone
        self.messages: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append((record.name, record.levelno, record.getMessage()))
        if self.alone and logging.lastResort is not None:
            logging.lastResort.handle(record)


def _key(name: str, inputs: list[Path], options: dict[str, Any]) -> str:
    contents = [[path.name, sha256(path)] for path in inputs]
    return f"{name}-{fingerprint(contents, options, hash_of_code('pairs', 'sources'))}"


def _read(folder: Path) -> Dataset | None:
    """The table of an entry, its warnings logged again; None where there is none, or none any more."""
    try:
        if not folder.is_dir():
            return None
        about = json.loads((folder / _ABOUT).read_text())
        if about.pop("checksum") != fingerprint(sha256(folder / _TABLE), about):
            raise ValueError("its checksum differs")
        pairs = Dataset.from_file(str(folder / _TABLE))
        pairs.info.description = about["description"]
        for name, level, text in about["messages"]:
            logging.getLogger(name).log(level, "%s", text)
        return pairs
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        logger.warning("%s: broken cache entry discarded, the table is made again (%s)", folder.name, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _write(folder: Path, pairs: Dataset, messages: list[tuple[str, int, str]]) -> None:
    about = {"description": pairs.info.description, "messages": messages}
    table = pairs.with_format("arrow")[:].replace_schema_metadata(pairs.features.arrow_schema.metadata)
    try:
        with written_whole(folder) as temporary:
            temporary.mkdir()
            with pa.OSFile(str(temporary / _TABLE), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
            about["checksum"] = fingerprint(sha256(temporary / _TABLE), about)
            (temporary / _ABOUT).write_text(canonical_json(about))
    except OSError as error:
        logger.warning("the table is not kept, so the next load takes as long (%s)", error)
