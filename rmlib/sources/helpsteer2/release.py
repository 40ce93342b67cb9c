"""The released files: where they are, and whether what was read is the release."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from datasets import Dataset
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from rmlib.pairs import DERIVED
from rmlib.records.errors import DataError, Place
from rmlib.records.files import JSONL_ENDINGS, contents, sha256

logger = logging.getLogger(__name__)

REPOSITORY = "nvidia/HelpSteer2"
REVISION = "990b2711a36180dd19d9c94b8627844866f8982a"


class File(NamedTuple):
    """One file as it is at REVISION; size and checksum are None where no source states them."""

    name: str
    rows: int
    bytes: int | None = None
    sha256: str | None = None


FILES = {
    "train": File("train.jsonl.gz", 20_324, 11_315_813,
                  "c0d7e91d738d42e8a08070db26c4c09a9c7631308e1f0fd380ff43d130c9f713"),
    "validation": File("validation.jsonl.gz", 1_038, 581_833,
                       "610eeb5289494d613c4c0f70aade2df8df0b499f3a24e76d232f74e6909d010a"),
    "preference": File("preference/preference.jsonl.gz", 9_125, 15_339_272,
                       "a5cd48600fb7a330cf0ccc8f59051e24e8f236907c379f42eff1ba18da55204b"),
    "disagreements": File("disagreements/disagreements.jsonl.gz", 23_652),
}  # fmt: skip
PAIRS = {split: FILES[split].rows // 2 for split in ("train", "validation")}  # the one of twice the same text included
DECIDED_PAIRS = {"train": 6_766, "validation": 352}  # preference other than 0, as the paper counts them
OPTIONAL = {
    "preference": f"preferences will be {DERIVED}",
    "disagreements": "the ratings of single annotators will be missing",
}


def download(revision: str) -> dict[str, Path]:
    """The files from the hub (through its cache). Raises DataError where one that is needed cannot be had."""
    paths = {}
    for part, file in FILES.items():
        place = Place(f"{file.name} of {REPOSITORY} on the hub")
        try:
            path = huggingface_hub.hf_hub_download(REPOSITORY, file.name, repo_type="dataset", revision=revision)
            paths[part] = Path(path)
        except (EntryNotFoundError, OSError) as error:
            absent = isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError)
            if part not in OPTIONAL or not absent:
                remedy = "Check the network and the revision, or name a folder that holds the files"
                raise DataError(place, f"not fetched ({error})", remedy) from error
            logger.warning("%s: not in revision %s; %s", place, revision, OPTIONAL[part])
    return paths


def find(folder: Path) -> dict[str, Path]:
    """The files in a folder, compressed or not; those of OPTIONAL may be absent. Raises DataError."""
    paths = present(folder)
    for part in [part for part in FILES if part not in paths and part not in OPTIONAL]:
        problem = f"no {part}.jsonl.gz or {part}.jsonl; the folder holds {contents(folder)}"
        raise DataError(Place(str(folder)), problem, f"Download the files of {REPOSITORY}, or load from 'hub'")
    return paths


def present(folder: Path) -> dict[str, Path]:
    """Those of the files that the folder has; the compressed one where there are two, preference/ before the top."""
    paths = {}
    for part, file in FILES.items():
        stems = (file.name.removesuffix(".jsonl.gz"), part)
        candidates = [folder / (stem + ending) for stem in stems for ending in JSONL_ENDINGS]
        found = [path for path in candidates if path.is_file()]
        if found:
            paths[part] = found[0]
    return paths


def claimed(paths: dict[str, Path], *, from_hub: bool) -> list[str]:
    """The parts that must be as released: all from the hub, in a folder those of a released size.

    A file whose released size is unknown goes with the others: it is claimed as soon as one of them is.
    """
    if from_hub:
        return list(paths)
    sized = [part for part, path in paths.items() if path.stat().st_size == FILES[part].bytes]
    return [part for part in paths if part in sized or (sized and FILES[part].bytes is None)]


def compare(paths: dict[str, Path], claimed: list[str], rows: dict[str, int], pairs: list[dict[str, Any]]) -> None:
    """Warn, in one line, of what differs from the release in the claimed parts; `rows` are the numbers read."""
    differences = [
        f"{FILES[part].name} has sha256 {digest}, not {FILES[part].sha256}"
        for part in claimed
        if FILES[part].sha256 is not None and (digest := sha256(paths[part])) != FILES[part].sha256
    ]
    differences += [
        f"{rows[part]:,} rows in {FILES[part].name}, not {FILES[part].rows:,}"
        for part in claimed
        if rows[part] != FILES[part].rows
    ]
    if "preference" in claimed:
        decided = Counter(pair["split"] for pair in pairs if pair.get("preference"))
        differences += [
            f"{decided[split]:,} decided pairs in {split}, not {released:,}"
            for split, released in DECIDED_PAIRS.items()
            if decided[split] != released
        ]
    if differences:
        logger.warning("HelpSteer2 is not as released at %s: %s", REVISION, "; ".join(differences))


def log_unchecked(paths: dict[str, Path], claimed: list[str], pairs: Dataset) -> None:
    """Say which files are not the released ones, and which could be compared by their number of rows alone."""
    others = [path.name for part, path in paths.items() if part not in claimed]
    if others:
        counts = Counter(pairs["split"][:])
        message = "HelpSteer2: not the released files, by their size: %s; %d + %d pairs; preferences: %s"
        logger.info(message, ", ".join(others), counts["train"], counts["validation"], pairs.info.description)
    unknown = [paths[part].name for part in claimed if FILES[part].sha256 is None]
    if unknown:
        logger.info("HelpSteer2: no checksum is known for %s: only the rows were counted", ", ".join(unknown))
