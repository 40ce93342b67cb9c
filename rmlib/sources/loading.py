"""A name or a folder becomes a table of pairs, and what a record says about it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib.pairs import content_hash
from rmlib.records.errors import DataError, Place
from rmlib.sources import folder, helpsteer2, simulated, ukpconvarg1
from rmlib.sources.options import OPTION_NAMES, refuse_unknown

NAMES = ("simulated", "simulated-ranked", "hub")
_TITLES = {
    "simulated": "simulated pairs",
    "simulated-ranked": "simulated pairs of four responses",
    "helpsteer2": "HelpSteer2",
    "ukpconvarg1": "UKPConvArg1",
    "folder": "own pairs",
}


@dataclass(frozen=True)
class SourceInfo:
    """What a record and a title say about a source.

    `title` names the scale of the ratings where they were given on another than 0-4 (see `pairs.views.rating_scale`).
    `preferences`: ANNOTATED, DERIVED, CONSENSUS or NONE of rmlib.pairs, or how many of them are derived.
    """

    name: str
    title: str
    preferences: str
    content_hash: str


def load(name_or_folder: str | Path, **options: Any) -> Dataset:
    """The table of pairs of "simulated" or "simulated-ranked", "hub" (HelpSteer2, downloaded), a file or a folder.

    A folder in the layout of HelpSteer2 or UKPConvArg1 goes to the loader of that name, any other to folder.load;
    `options` go to the loader.
    Raises DataError for a name that is neither known nor a folder.
    """
    return _load(*_loader(name_or_folder), options)


def describe(name_or_folder: str | Path, **options: Any) -> SourceInfo:
    """Name, title, origin of the preferences and content hash of a source; loads it, so raises what `load` raises."""
    return load_described(name_or_folder, **options)[1]


def load_described(name_or_folder: str | Path, **options: Any) -> tuple[Dataset, SourceInfo]:
    """What `load` and `describe` return, of one reading.

    A folder of one's own pairs is named by its content, never by its path.
    """
    name, loader = _loader(name_or_folder)
    pairs = _load(name, loader, options)
    digest = content_hash(pairs)
    counts = Counter(pairs["split"][:])
    preferences, _, scale = pairs.info.description.partition("; ")
    sizes = f"{counts['train']:,} train, {counts['validation']:,} validation"
    title = f"{_TITLES[name]} ({'; '.join(filter(None, (sizes, scale)))})"
    public = f"folder-{digest[:8]}" if name == "folder" else name
    return pairs, SourceInfo(public, title, preferences, digest)


def _load(name: str, loader: Callable[..., Dataset], options: dict[str, Any]) -> Dataset:
    known = OPTION_NAMES if name == "folder" else [each for each in signature(loader).parameters if each != "folder"]
    refuse_unknown(options, known, _TITLES[name])
    return loader(**options)


def _loader(name_or_folder: str | Path) -> tuple[str, Callable[..., Dataset]]:
    """The name of the source and the function that loads it."""
    if name_or_folder == "simulated":
        return "simulated", simulated.load
    if name_or_folder == "simulated-ranked":
        return "simulated-ranked", simulated.load_ranked
    if name_or_folder == "hub":
        return "helpsteer2", partial(helpsteer2.load, "hub")
    path = Path(name_or_folder).expanduser()
    if path.is_file():
        return "folder", partial(folder.load, path)
    if not path.is_dir():
        problem = "neither a known source nor a file or folder"
        raise DataError(Place(str(name_or_folder)), problem, f"Use {', '.join(NAMES)}, or the path of a file or folder")
    if helpsteer2.is_layout(path):
        return "helpsteer2", partial(helpsteer2.load, path)
    if ukpconvarg1.is_layout(path):
        return "ukpconvarg1", partial(ukpconvarg1.load, path)
    return "folder", partial(folder.load, path)
