"""Rewards of the candidates of a benchmark's items: scored here and kept on disk by content, or read from a file.

A file of scores, ours or another program's, has one row an item: `item_id` (or `id`) and its rewards in the item's
order, as a list in `scores` or as `score_1`, `score_2`, …; it is a table of any kind that `records.files` reads, or a
.json file that is one object {item_id: [rewards]}. An item that nobody could score has null for `scores`, and says why
in `reason`. Files of ours say in `texts_hash` which texts were scored; rows without it are taken by their id. Official
output files of JudgeBench's reward models are read as they are.
"""

import contextlib
import json
import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Bool, Float, Int

from rmlib.benchmarks import judgebench
from rmlib.benchmarks.benchmark import TEXTS, Scores
from rmlib.benchmarks.items import Row, responses_of, rows_of
from rmlib.models import AsGiven, ConversationError, ModelError, Response, Scorer
from rmlib.pairs.messages import EXTRAS
from rmlib.records.errors import DataError, Place, check_number, shown
from rmlib.records.files import ending_of, parse_json, placed_rows, written_whole
from rmlib.records.hashing import text_key
from rmlib.records.kept import Kept
from rmlib.records.progress import progress_bar

logger = logging.getLogger(__name__)

TOO_LONG = "a text is too long for the model"
ANY_NUMBER = (-math.inf, math.inf)


def score(
    model: Scorer,
    items: Dataset,
    *,
    items_per_call: int = 128,
    progress: bool = True,
    keep: bool = True,
    skip_long: bool = False,
) -> Scores:
    """The reward of each candidate of every item.

    Args:
        keep: read rewards that are known from an earlier call, and keep new ones as they come, so that an interrupted
            scoring goes on. Known means: the same weights, tokenizer, template and texts. Turn it off to measure time.
        skip_long: leave out items with a text that the model cannot take whole; they are `skipped`, and counted.
            Otherwise the model decides: decoders and classifiers refuse them, our encoders shorten them and say so.
    Raises ValueError where the model does not give one finite reward for each response; it names the items.
    """
    refuse_unwritable(model, items)
    kept = _kept_for(model) if keep else None
    scores = Scores()
    with progress_bar(total=len(items), desc="scoring", unit="item", show=progress, leave=False) as bar:
        for start in range(0, len(items), items_per_call):
            rows = items[start : start + items_per_call]
            found = _score_rows(model, rows, kept, skip_long)
            scores.update({name: rewards for name, rewards in found.items() if rewards is not None})
            scores.skipped |= {name: TOO_LONG for name, rewards in found.items() if rewards is None}
            texts = zip(rows["prompt"], _candidates(rows), strict=True)
            scores.texts.update(zip(found, (text_key(prompt, *responses) for prompt, responses in texts), strict=True))
            bar.update(len(rows["item_id"]))
    if scores.skipped:
        logger.warning("%d of %d items skipped: %s", len(scores.skipped), len(items), TOO_LONG)
    return scores


def refuse_unwritable(model: Any, items: Dataset, *, all_items: bool = False) -> None:
    """Raise ModelError, with the item's id, for a conversation that the model's chat template refuses.

    Of the items that have the same roles and keys one is tried, or all of them.
    """
    if not hasattr(model, "encode"):  # a ruler has no template
        return
    tried: dict[Any, tuple[str, Any, Response]] = {}
    for item in rows_of(items, "item_id", "prompt", "candidates", "extras"):
        for response in responses_of(item):
            kind = [(message["role"], bool(message.get(EXTRAS))) for message in item["prompt"]], type(response).__name__
            tried.setdefault(len(tried) if all_items else str(kind), (item["item_id"], item["prompt"], response))
    names, prompts, responses = zip(*tried.values(), strict=True)
    with _naming(names):
        model.encode(prompts, responses)


@contextlib.contextmanager
def _naming(names: Sequence[str]) -> Iterator[None]:
    """Within the block a conversation that cannot be written is said with its name, one for each response given."""
    try:
        yield
    except ConversationError as error:
        raise ModelError(f"item {names[error.row]}: {error.problem}") from error


def _candidates(rows: Mapping[str, list[Any]]) -> list[list[Response]]:
    extras = rows.get(EXTRAS) or [None] * len(rows["candidates"])
    texts = zip(rows["candidates"], extras, strict=True)
    return [responses_of({"candidates": some, EXTRAS: own}) for some, own in texts]


def _kept_for(model: Any) -> Kept | None:
    if "torch" not in sys.modules:
        return None  # whatever has weights has loaded torch
    from rmlib.benchmarks.scorers import identity_of  # late, for its weight: a ruler answers before torch has loaded

    made_by = identity_of(model)
    return None if made_by is None else Kept("rewards", made_by)


def _score_rows(
    model: Scorer, rows: Mapping[str, list[Any]], kept: Kept | None, skip_long: bool
) -> dict[str, list[float] | None]:
    """The rewards of some items, None for an item with a text that was left out."""
    names, sizes = rows["item_id"], [len(responses) for responses in rows["candidates"]]
    prompts = [prompt for prompt, size in zip(rows["prompt"], sizes, strict=True) for _ in range(size)]
    with _naming([name for name, size in zip(names, sizes, strict=True) for _ in range(size)]):
        rewards, skipped = _rewards(model, prompts, [*chain(*_candidates(rows))], kept, skip_long)
    each = [np.split(values, np.cumsum(sizes)[:-1]) for values in (rewards, skipped)]
    found = {name: None if left_out.any() else given for name, given, left_out in zip(names, *each, strict=True)}
    broken = [name for name, values in found.items() if values is not None and np.isnan(values).any()]
    if broken:
        raise ValueError(f"rewards that are not finite for {len(broken)} items, e.g. {broken[:5]}: the model is broken")
    return {name: None if values is None else values.tolist() for name, values in found.items()}


def _rewards(
    model: Any, prompts: list[Any], responses: list[Response], kept: Kept | None, skip_long: bool
) -> tuple[Float[np.ndarray, "response"], Bool[np.ndarray, "response"]]:
    """Known rewards and those of the rest, NaN where there is none; and which texts were left out."""
    keys = [text_key(prompt, text) for prompt, text in zip(prompts, responses, strict=True)] if kept else []
    rewards = np.array([kept.known.get(key, np.nan) for key in keys] if kept else [np.nan] * len(responses))
    skipped = np.zeros(len(responses), dtype=bool)
    rest = np.flatnonzero(np.isnan(rewards))
    if skip_long and hasattr(model, "encode"):  # a ruler reads texts of any length
        with _at(rest):
            encoded = model.encode(_taken(prompts, rest), _taken(responses, rest))
        skipped[rest] = encoded.exceeds(model.max_length)
        rest = rest[~skipped[rest]]
    if len(rest):
        with _at(rest):
            new = _new_rewards(model, _taken(prompts, rest), _taken(responses, rest))
        rewards[rest] = np.where(np.isfinite(new), new, np.nan)
        if kept:
            kept.add({keys[index]: float(value) for index, value in zip(rest, new, strict=True) if np.isfinite(value)})
            # By its place in the batch a text that comes twice may differ in the last bit: the one that is kept counts.
            rewards[rest] = [kept.known.get(keys[index], np.nan) for index in rest]
    return rewards, skipped


@contextlib.contextmanager
def _at(taken: Int[np.ndarray, "taken"]) -> Iterator[None]:
    """Within the block the row of a ConversationError is counted among all, not among those taken."""
    try:
        yield
    except ConversationError as error:
        raise ConversationError(int(taken[error.row]), error.problem) from error


def _taken(values: Sequence[Any], indices: Int[np.ndarray, "taken"]) -> list[Any]:
    return [values[index] for index in indices]


def _new_rewards(model: Scorer, prompts: list[Any], responses: list[Response]) -> Float[np.ndarray, "response"]:
    rewards = np.asarray(model.score(prompts, AsGiven(responses)), dtype=float)
    if rewards.shape != (len(responses),):
        raise ValueError(
            f"expected one reward for each of {len(responses)} responses, got shape {list(rewards.shape)}; "
            "give a model of several attributes one output first (combining.weigh_attributes)"
        )
    return rewards


# --- files of scores --------------------------------------------------------------------------------------------------


def read_scores(file: str | Path, items: Dataset) -> Scores:
    """The scores in a file, one reward for each candidate of each item; rows that say nothing of texts are counted.

    Raises DataError naming file and row for what cannot be read, an id that is unknown or occurs twice, scores of other
    texts than the item's, another number of rewards than it has candidates, a reward that is no finite number, and for
    items without a row.
    """
    file, scores, by_id = Path(file), Scores(), 0
    known = {row["item_id"]: row for row in rows_of(items, "item_id", "prompt", "candidates", EXTRAS)}
    for place, row in _rows(file):
        name = _item_id(row, place, known)
        if name in scores or name in scores.skipped:
            raise DataError(place, f"the id {shown(name)} occurs twice", "Keep one row for each item")
        by_id += not _names_texts(row, place, known[name], scores)
        given = _given(row, place)
        if given is None:
            scores.skipped[name] = str(row["reason"])
        elif len(given) != (n := len(known[name]["candidates"])):
            raise DataError(place, f"{len(given)} rewards for {n} candidates", "Give one each, in the item's order")
        else:
            scores[name] = [check_number(_plain(value), ANY_NUMBER, place) for value in given]
    missing = [name for name in known if name not in scores and name not in scores.skipped]
    if missing:
        problem = f"no row for {len(missing)} of {len(known)} items, e.g. {missing[:5]}"
        raise DataError(Place(file.name), problem, "Score them too, or give each a row with a null and a reason")
    if by_id:
        logger.warning("%s: %d of %d rows have no %s; they are taken by their id", file.name, by_id, len(known), TEXTS)
    return scores


def write_scores(scores: Scores, file: str | Path) -> Path:
    """The scores as JSON lines that `read_scores` reads, written whole or not at all."""
    rows: list[dict[str, Any]] = [{"item_id": name, "scores": rewards} for name, rewards in scores.items()]
    rows += [{"item_id": name, "scores": None, "reason": reason} for name, reason in scores.skipped.items()]
    rows = [row | {TEXTS: scores.texts[row["item_id"]]} if row["item_id"] in scores.texts else row for row in rows]
    with written_whole(Path(file)) as temporary:
        temporary.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")
    return Path(file)


def _rows(file: Path) -> Iterator[tuple[Place, Row]]:
    """The rows of a file with their places; those of an object {item_id: [rewards]} have none."""
    if not file.is_file():
        raise DataError(Place(file.name), "there is no such file", "Name a .jsonl, .json, .csv or .parquet file")
    if ending_of(file) is None:
        raise DataError(Place(file.name), "not a kind of file that is read", "Give .jsonl, .json, .csv or .parquet")
    for place, row in placed_rows(file):
        if ending_of(file) == ".json" and not {"item_id", "id", "judgments"} & row.keys():
            yield from ((Place(file.name), {"item_id": name, "scores": given}) for name, given in row.items())
        else:
            yield place, judgebench.official_scores(row, place) if "judgments" in row else row


def _item_id(row: Row, place: Place, known: Mapping[str, Any]) -> str:
    name = row.get("item_id", row.get("id"))
    if name is None:
        raise DataError(place, f"no item_id; the row has {', '.join(map(str, row))}", "Add the column item_id")
    if str(name) not in known:
        problem = f"{shown(str(name))} is no item of this benchmark"
        raise DataError(place, problem, "Use the ids that `load` gives, or load the items that were scored")
    return str(name)


def _names_texts(row: Row, place: Place, item: Row, scores: Scores) -> bool:
    """Whether a row says which texts it scored, which are then noted; DataError where they are not the item's."""
    if row.get(TEXTS) in (None, ""):
        return False
    scores.texts[item["item_id"]] = text_key(item["prompt"], *responses_of(item))
    if row[TEXTS] != scores.texts[item["item_id"]]:
        problem = f"{item['item_id']} has other texts than those that were scored"
        raise DataError(place.at(TEXTS), problem, "Load the items that were scored, or score these")
    return True


def _given(row: Row, place: Place) -> Sequence[Any] | None:
    """The rewards as they stand in a row, None for an item that is skipped with a reason."""
    given, wide = row.get("scores"), _numbered(row, place)
    if given in (None, "") and not wide and row.get("reason"):
        return None
    if isinstance(given, str) and given:
        try:
            given = parse_json(given.encode())
        except (ValueError, RecursionError) as error:
            problem = f"{shown(given)} is not a list ({error})"
            raise DataError(place.at("scores"), problem, "Write [1.5, 0.2]") from error
    if given not in (None, "") and wide:
        raise DataError(place, "both `scores` and `score_1`", "Keep one of them")
    given = wide or given
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise DataError(place, f"{shown(given)} are no rewards", "Give a list `scores`, or `score_1`, `score_2`, …")
    return given


def _numbered(row: Row, place: Place) -> list[Any]:
    """The values of `score_1`, `score_2`, … without the empty ones at the end. Raises DataError for a gap."""
    numbers = {int(name.removeprefix("score_")): name for name in row if re.fullmatch(r"score_(0|[1-9]\d*)", str(name))}
    values = [row[numbers[number]] for number in sorted(numbers)]
    while values and (values[-1] in (None, "") or values[-1] != values[-1]):  # of an item with fewer candidates
        values.pop()
    if values and sorted(numbers) != [*range(1, len(numbers) + 1)]:
        names = ", ".join(numbers[number] for number in sorted(numbers))
        raise DataError(
            place, f"the columns {names} do not count from 1 without a gap", "Name them score_1, score_2, …"
        )
    for number, value in enumerate(values, start=1):
        if value in (None, ""):
            raise DataError(place.at(f"score_{number}"), "no score, though a later one has", "Score all candidates")
    return values


def _plain(value: Any) -> Any:
    """A number that a .csv file holds as a text."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value
