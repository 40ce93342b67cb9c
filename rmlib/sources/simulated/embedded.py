"""The files in data/embedded: written by one command, checked against recorded hashes whenever they are read."""

import gzip
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib.pairs import make_pairs, pair_id
from rmlib.records import paths
from rmlib.records.errors import DataError, Place
from rmlib.records.files import read_rows
from rmlib.records.progress import progress_bar
from rmlib.sources.cache import cached
from rmlib.sources.simulated.benchmark import benchmark_items
from rmlib.sources.simulated.generation import generate

logger = logging.getLogger(__name__)

N_PAIRS, SEED = 12_000, 0
PAIRS_FILE, BENCHMARK_FILE = "pairs.jsonl.gz", "rewardbench.jsonl.gz"
BACKBONE_FOLDER, SUMS_FILE = "backbone", "SHA256SUMS"
REMEDY = "Restore the file, or write it anew with: python -m rmlib.sources.simulated write"


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


def write(folder: Path, *, n_pairs: int = N_PAIRS, seed: int = SEED) -> None:
    """Generate pairs, benchmark, tokenizer, config and their hashes, the same bytes each time."""
    from rmlib.sources.simulated.backbone import write_backbone  # imports transformers, which reading does not need

    (folder / BACKBONE_FOLDER).mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / PAIRS_FILE, distinct(generate(n_pairs, seed)))
    write_jsonl(folder / BENCHMARK_FILE, benchmark_items())
    write_backbone(folder / BACKBONE_FOLDER, texts_of(generate(n_pairs, seed)))
    lines = [f"{digest}  {name}\n" for name, digest in sums(folder).items()]
    (folder / SUMS_FILE).write_text("".join(lines))


def stream(folder: Path, n_pairs: int, seed: int) -> Path:
    """Write `n_pairs` generated pairs, less repeats, to pairs.jsonl.gz in the folder, in constant memory.

    The file has its name only when it is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{PAIRS_FILE}.part"
    write_jsonl(part, distinct(progress_bar(generate(n_pairs, seed), total=n_pairs, unit="pairs")))
    return part.replace(folder / PAIRS_FILE)


def check(folder: Path, *, n_pairs: int = N_PAIRS, seed: int = SEED) -> None:
    """Raise DataError where a file differs from its recorded hash or from what would be generated now."""
    expected = recorded(folder)
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary), n_pairs=n_pairs, seed=seed)
        generated = sums(Path(temporary))
    for name in sorted({*expected, *generated}):
        path = folder / name
        found = content_sha256(path) if path.is_file() else "none: there is no such file"
        for origin, digest in ((SUMS_FILE, expected.get(name)), ("the generator", generated.get(name))):
            if found != digest:
                raise DataError(Place(name), f"its content has sha256 {found}, {origin} says {digest}", REMEDY)


class Seen:
    """Which names occurred, in 16 MB however many they are: a Bloom filter (Bloom, 1970).

    A name that occurred is always found; one that did not is taken for one that did with a probability of 1e-9 after
    a million names, 0.3 % after ten million.
    """

    N_BITS, N_PLACES = 2**27, 7

    def __init__(self) -> None:
        self._bits = bytearray(self.N_BITS // 8)

    def add(self, name: str) -> bool:
        """Note a name of 16 hex digits, as `pair_id` gives; whether it had (almost surely) been noted before."""
        number = int(name, 16)
        start, step = number & 0xFFFFFFFF, number >> 32 | 1
        known = True
        for place in range(start, start + self.N_PLACES * step, step):
            byte, bit = place % self.N_BITS >> 3, 1 << (place & 7)
            known &= bool(self._bits[byte] & bit)
            self._bits[byte] |= bit
        return known


def distinct(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows without those that repeat an earlier pair (see `Seen`), which are counted."""
    seen = Seen()
    n_repeated = 0
    for row in rows:
        if seen.add(pair_id(row["prompt"], row["response_1"], row["response_2"])):
            n_repeated += 1
        else:
            yield row
    logger.info("left out %d generated pairs that repeat an earlier one", n_repeated)


def texts_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Every text of the rows."""
    for row in rows:
        yield from (message["content"] for message in row["prompt"])
        yield row["response_1"]
        yield row["response_2"]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as gzipped JSON lines, without the time and name that gzip would add."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for row in rows:
            file.write(json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")


def content_sha256(path: Path) -> str:
    """Hash of the content; of gzip files the uncompressed one, which does not depend on the version of zlib."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sums(folder: Path) -> dict[str, str]:
    """Content hash of every file in the folder but the list of hashes itself, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS_FILE)
    return {path.relative_to(folder).as_posix(): content_sha256(path) for path in files}


def recorded(folder: Path) -> dict[str, str]:
    """The recorded hashes by file name. Raises DataError where there are none."""
    path = folder / SUMS_FILE
    if not path.is_file():
        raise DataError(Place(path.name), "there is no such file", REMEDY)
    pairs = (line.split(maxsplit=1) for line in path.read_text().splitlines())
    return {name: digest for digest, name in pairs}
