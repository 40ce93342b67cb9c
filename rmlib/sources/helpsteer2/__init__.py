"""HelpSteer2 (arXiv 2406.08673) and its preferences (arXiv 2410.01257), from the files as released (CC-BY-4.0).

`train.jsonl.gz` and `validation.jsonl.gz` hold one rated response a row, two adjacent rows a prompt;
`preference/preference.jsonl.gz`, where present, holds the preferences between the two.
"""

from pathlib import Path

from datasets import Dataset

from rmlib.pairs import ANNOTATED, DERIVED, make_pairs, preference_from_ratings
from rmlib.sources.files import first_columns, folder_of
from rmlib.sources.helpsteer2 import preferences, ratings, release

__all__ = ["is_layout", "load"]


def load(source: str | Path, *, revision: str = release.REVISION) -> Dataset:
    """The pairs of HelpSteer2, from "hub" (downloaded at `revision`) or from a folder in the same layout.

    With a preference file, a pair that it does not name has no preference; without one, preferences are derived from
    the helpfulness ratings. Raises DataError naming file, row and field; differences from the release are warned of.
    """
    from_hub = source == "hub"
    paths = release.download(revision) if from_hub else release.find(folder_of(source))
    pairs = [pair for split in ("train", "validation") for pair in ratings.read(paths[split], split)]
    if "preference" in paths:
        preferences.join(pairs, paths["preference"])
    else:
        for pair in pairs:
            pair["preference"] = preference_from_ratings(*(pair[f"ratings_{side}"]["helpfulness"] for side in (1, 2)))
    release.compare(paths, pairs, from_hub=from_hub)
    return make_pairs(pairs, origin="HelpSteer2", preferences=ANNOTATED if "preference" in paths else DERIVED)


def is_layout(folder: Path) -> bool:
    """Whether the folder has a rating file by name, and its first row is not one of a table of pairs."""
    paths = release.present(folder)
    ratings_path = paths.get("train") or paths.get("validation")
    return ratings_path is not None and not first_columns(ratings_path) & {"response_1", "chosen"}
