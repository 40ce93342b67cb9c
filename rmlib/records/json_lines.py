"""Files of JSON lines to which several processes append, each under a lock; what a killed one left is taken away."""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[FileIO]:
    """The file, made where it is missing, open for reading from its start and appending, with nobody else writing."""
    with path.open("a+b", buffering=0) as file:  # every write goes to the end, in one call
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or the process dies
        file.seek(0)
        yield file


def write(file: FileIO, lines: Sequence[str]) -> None:
    """Append lines in one write that is on the disk when this returns. Raises OSError where the disk is full."""
    content = "".join(line + "\n" for line in lines).encode()
    if file.write(content) != len(content):
        raise OSError(f"the disk took only a part of {len(content)} bytes; make room and run again")
    os.fsync(file.fileno())


def repair_end(file: FileIO, path: Path) -> None:
    """Take away what a killed writer left of its line, so that the next one starts on a line of its own."""
    content = file.read()
    whole, _, rest = content.rpartition(b"\n")
    if rest and is_cut_short(rest):
        logger.warning("%s: removed line %d, cut short by a killed writer", path, content.count(b"\n") + 1)
        file.truncate(len(content) - len(rest))
    elif rest:
        file.write(b"\n")
    file.seek(0)


def is_cut_short(line: bytes) -> bool:
    """Whether a last line is no JSON, as a killed writer leaves it."""
    try:
        json.loads(line)
    except ValueError:
        return True
    return False
