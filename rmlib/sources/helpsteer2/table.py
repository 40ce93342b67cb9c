"""The table of pairs of HelpSteer2, of its three kinds of files."""

from functools import partial
from pathlib import Path

from datasets import Dataset

from rmlib.pairs import ANNOTATED, ATTRIBUTES, DERIVED, make_pairs, preference_from_ratings
from rmlib.records.errors import Place
from rmlib.records.files import first_rows, folder_of
from rmlib.sources.cache import cached
from rmlib.sources.helpsteer2 import release, rows


def load(source: str | Path, *, revision: str = release.REVISION) -> Dataset:
    """The pairs of HelpSteer2, from "hub" (downloaded at `revision`) or from a folder in the same layout.

    With a preference file, a pair that it does not name has no preference; without one, preferences are derived from
    the helpfulness ratings. The annotations of a pair are first those of the preference file, then one for each
    annotator's ratings of response 1, then of response 2; the files have no annotator ids, so nothing tells which of
    these come from the same person. A second load of the same files takes the table from the cache.
    Raises DataError naming file, row and field; differences from the release are warned of.
    """
    from_hub = source == "hub"
    paths = release.download(revision) if from_hub else release.find(folder_of(source))
    claimed = release.claimed(paths, from_hub=from_hub)
    make = partial(_joined, paths, claimed)
    pairs = cached("helpsteer2", paths.values(), make, parts=list(paths), claimed=claimed)
    release.log_unchecked(paths, claimed, pairs)
    return pairs


def is_layout(folder: Path) -> bool:
    """Whether the folder has two of the files, or one of a released size, and ratings that begin as in the release."""
    paths = release.present(folder)
    ratings = [paths[split] for split in ("train", "validation") if split in paths]
    whole = len(paths) > 1 or bool(release.claimed(paths, from_hub=False))
    return whole and bool(ratings) and all(map(_begins_as_released, ratings))


def _begins_as_released(path: Path) -> bool:
    """Whether the first rows are two rated responses to one prompt, and no third."""
    rows = first_rows(path, 3)
    if len(rows) < 2 or not all({"prompt", "response", *ATTRIBUTES} <= row.keys() for row in rows[:2]):
        return False
    prompts = [row.get("prompt") for row in rows]
    return prompts[0] == prompts[1] and prompts[2:] != prompts[:1]


def _joined(paths: dict[str, Path], claimed: list[str]) -> Dataset:
    pairs: dict[Place, rows.Row] = {}
    n_rows = {}
    for split in ("train", "validation"):
        read = rows.read_ratings(paths[split], split)
        pairs |= read
        n_rows[split] = 2 * len(read)
    if "preference" in paths:
        n_rows["preference"] = rows.join_preferences(list(pairs.values()), paths["preference"])
    else:
        for pair in pairs.values():
            pair["preference"] = preference_from_ratings(*(pair[f"ratings_{side}"]["helpfulness"] for side in (1, 2)))
    if "disagreements" in paths:
        n_rows["disagreements"] = rows.join_disagreements(list(pairs.values()), paths["disagreements"])
    release.compare(paths, claimed, n_rows, list(pairs.values()))
    kind = ANNOTATED if "preference" in paths else DERIVED
    return make_pairs(pairs.values(), origin="HelpSteer2", preferences=kind, places=pairs, repeats="first")
