"""What took long is kept on disk by content and never made twice; what is kept may be deleted at any time.

`Kept` holds values by text, `kept_json` one result, `kept_folder` a folder. What was interrupted goes on, or is made
again: nobody reads half of it. Whoever names a file or a folder puts a hash of all that its content depends on into
the name (`rmlib.records.hashing`).
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rmlib.records import files, paths
from rmlib.records.hashing import canonical_json

logger = logging.getLogger(__name__)


def kept_json(file: Path, make: Callable[[], Any]) -> Any:
    """What `make()` gives, as JSON has it: made once and written whole, from then on read from the file."""
    if not file.is_file():
        files.write_json(file, make())
    return json.loads(file.read_text())


def kept_folder(folder: Path, fill: Callable[[Path], object]) -> Path:
    """The folder that `fill(temporary)` makes and fills: once, under another name until it is whole, then found."""
    if not folder.is_dir():
        with files.written_whole(folder) as temporary:
            fill(temporary)
    return folder


class Kept:
    """Values by text key, as they lie on disk and as they are added; `made_by` says what else they depend on.

    That is a model's weights, tokenizer and template, or a judge's name and instructions: for each of these there is
    one file of JSON lines below `paths.runs_dir()/"scores"`, one line a text. Writers may share a file. A line that
    cannot be read is left out with a warning, and its text is scored anew.
    """

    def __init__(self, kind: str, made_by: Mapping[str, Any]) -> None:
        self._header = canonical_json({"kind": kind, "made_by": made_by})
        digest = hashlib.sha256(self._header.encode()).hexdigest()[:16]
        self.path = paths.runs_dir() / "scores" / f"{kind}-{digest}.jsonl"
        self.known: dict[str, Any] = self._read() if self.path.is_file() else {}
        self._repaired = False

    def add(self, values: Mapping[str, Any]) -> None:
        """Keep values (anything JSON has, numbers finite), in one write. Where nothing can be written, a warning."""
        self.known |= values
        lines = [json.dumps([key, value], ensure_ascii=False, allow_nan=False) for key, value in values.items()]
        if not lines:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with files.locked(self.path) as file:
                if not self._repaired:  # once: it reads the whole file
                    files.repair_end(file, self.path)
                    self._repaired = True
                files.append_lines(file, lines if file.read(1) else [self._header, *lines])
        except OSError as error:
            logger.warning("scores are not kept, so scoring again takes as long (%s)", error)

    def _read(self) -> dict[str, Any]:
        header, *lines = self.path.read_bytes().splitlines() or [b""]
        if header != self._header.encode():
            logger.warning("scores/%s begins with another header than its own; it is moved aside", self.path.name)
            self.path.replace(self.path.with_suffix(".unreadable"))
            return {}
        known, n_broken = {}, 0
        for line in lines:
            try:
                key, value = json.loads(line)
                known[key] = value
            except (ValueError, TypeError):
                n_broken += 1
        if n_broken:
            logger.warning("scores/%s: %d lines cannot be read; they are scored anew", self.path.name, n_broken)
        return known
