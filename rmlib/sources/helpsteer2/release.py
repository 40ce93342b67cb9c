"""The released files: where they are, and whether what was read is the release."""

import hashlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from rmlib.pairs import ANNOTATED, DERIVED
from rmlib.schema import DataError, Place
from rmlib.sources.files import JSONL_ENDINGS, contents

logger = logging.getLogger(__name__)

REPOSITORY = "nvidia/HelpSteer2"
REVISION = "990b2711a36180dd19d9c94b8627844866f8982a"


class File(NamedTuple):
    """One file as it is at REVISION."""

    name: str
    bytes: int
    sha256: str


FILES = {
    "train": File("train.jsonl.gz", 11_315_813, "c0d7e91d738d42e8a08070db26c4c09a9c7631308e1f0fd380ff43d130c9f713"),
    "validation": File(
        "validation.jsonl.gz", 581_833, "610eeb5289494d613c4c0f70aade2df8df0b499f3a24e76d232f74e6909d010a"
    ),
    "preference": File(
        "preference/preference.jsonl.gz",
        15_339_272,
        "a5cd48600fb7a330cf0ccc8f59051e24e8f236907c379f42eff1ba18da55204b",
    ),
}
PAIRS = {"train": 10_162, "validation": 519}
DECIDED_PAIRS = {"train": 6_766, "validation": 352}  # preference other than 0, as the paper counts them


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
            if part != "preference" or not absent:
                remedy = "Check the network and the revision, or name a folder that holds the files"
                raise DataError(place, f"not fetched ({error})", remedy) from error
            logger.warning("%s: not in revision %s; preferences will be %s", place, revision, DERIVED)
    return paths


def find(folder: Path) -> dict[str, Path]:
    """The files in a folder, compressed or not; the preference file may be absent. Raises DataError."""
    paths = present(folder)
    for part in ("train", "validation"):
        if part not in paths:
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


def compare(paths: dict[str, Path], pairs: list[dict[str, Any]], *, from_hub: bool) -> None:
    """Warn of what differs from the release in files that come from the hub or have a released size."""
    claimed = {part: from_hub or path.stat().st_size == FILES[part].bytes for part, path in paths.items()}
    counts = Counter(pair["split"] for pair in pairs)
    if not any(claimed.values()):
        kind = ANNOTATED if "preference" in paths else DERIVED
        message = "%s: not the released files, but %d + %d pairs; preferences: %s"
        logger.info(message, paths["train"].parent.name, counts["train"], counts["validation"], kind)
        return
    differences = [
        f"{FILES[part].name} has sha256 {digest}, not {FILES[part].sha256}"
        for part, path in paths.items()
        if claimed[part] and (digest := hashlib.sha256(path.read_bytes()).hexdigest()) != FILES[part].sha256
    ]
    expected = [("pairs", PAIRS, counts)]
    if "preference" in paths:
        decided = Counter(pair["split"] for pair in pairs if pair.get("preference"))
        expected.append(("decided pairs", DECIDED_PAIRS, decided))
    for what, released, found in expected:
        differences += [f"{found[s]:,} {what} in {s}, not {n:,}" for s, n in released.items() if found[s] != n]
    if differences:
        logger.warning("HelpSteer2 is not as released at %s: %s", REVISION, "; ".join(differences))
