"""The pairs in data/embedded, checked against their recorded hash whenever they are read."""

import hashlib
from pathlib import Path

from datasets import Dataset

from rmlib.pairs import make_pairs
from rmlib.records import paths
from rmlib.records.errors import DataError, Place
from rmlib.records.files import read_bytes, read_rows
from rmlib.sources.cache import cached

N_PAIRS, SEED = 12_000, 0
PAIRS_FILE, SUMS_FILE = "pairs.jsonl.gz", "SHA256SUMS"
REMEDY = "Restore the file, or write it anew with: python -m tools.simulated_data write"


def default_folder() -> Path:
    """data/embedded of the clone."""
    return paths.data_dir() / "embedded"


def load(folder: str | Path | None = None) -> Dataset:
    """The simulated pairs of the repository, with their truth; a second load takes the table from the cache.

    Raises DataError where the file is absent or altered.
    """
    path = Path(folder or default_folder()) / PAIRS_FILE
    if not path.is_file():
        raise DataError(Place(path.name), "there is no such file", REMEDY)
    expected = recorded(path.parent).get(PAIRS_FILE)
    if (found := content_sha256(path)) != expected:
        raise DataError(Place(path.name), f"its content has sha256 {found}, {SUMS_FILE} says {expected}", REMEDY)
    return cached("simulated", [path], lambda: make_pairs(read_rows(path), origin=path.name))


def content_sha256(path: Path) -> str:
    """Hash of the content; of gzip files the uncompressed one, which does not depend on the version of zlib."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def recorded(folder: Path) -> dict[str, str]:
    """The recorded hashes by file name. Raises DataError where there are none."""
    path = folder / SUMS_FILE
    if not path.is_file():
        raise DataError(Place(path.name), "there is no such file", REMEDY)
    pairs = (line.split(maxsplit=1) for line in path.read_text().splitlines())
    return {name: digest for digest, name in pairs}
