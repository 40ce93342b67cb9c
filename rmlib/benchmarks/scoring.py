"""Rewards of the candidates of a benchmark's items, kept on disk by content where the scorer has one."""

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Bool, Float, Int

from rmlib.models import Scorer
from rmlib.records.hashing import text_key
from rmlib.records.kept import Kept
from rmlib.records.progress import progress_bar

logger = logging.getLogger(__name__)

TOO_LONG = "a text is too long for the model"


class Scores(dict[str, list[float]]):
    """{item_id: [reward of each candidate, in the item's order]}, and why items have none: {item_id: reason}."""

    def __init__(self, rewards: Mapping[str, list[float]] | None = None, skipped: Mapping[str, str] | None = None):
        super().__init__(rewards or {})
        self.skipped = dict(skipped or {})


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
    kept = _kept_for(model) if keep else None
    scores = Scores()
    with progress_bar(total=len(items), desc="scoring", unit="item", show=progress, leave=False) as bar:
        for start in range(0, len(items), items_per_call):
            rows = items[start : start + items_per_call]
            found = _score_rows(model, rows["item_id"], rows["prompt"], rows["candidates"], kept, skip_long)
            scores.update({name: rewards for name, rewards in found.items() if rewards is not None})
            scores.skipped |= {name: TOO_LONG for name, rewards in found.items() if rewards is None}
            bar.update(len(rows["item_id"]))
    if scores.skipped:
        logger.warning("%d of %d items skipped: %s", len(scores.skipped), len(items), TOO_LONG)
    return scores


def _kept_for(model: Any) -> Kept | None:
    if "torch" not in sys.modules:
        return None  # whatever has weights has loaded torch; for a ruler that takes longer than scoring
    from rmlib.benchmarks.scorers import identity_of

    made_by = identity_of(model)
    return None if made_by is None else Kept("rewards", made_by)


def _score_rows(
    model: Scorer,
    names: list[str],
    prompts: list[Any],
    candidates: list[list[str]],
    kept: Kept | None,
    skip_long: bool,
) -> dict[str, list[float] | None]:
    """The rewards of some items, None for an item with a text that was left out."""
    sizes = [len(responses) for responses in candidates]
    repeated = [prompt for prompt, size in zip(prompts, sizes, strict=True) for _ in range(size)]
    flat = [text for responses in candidates for text in responses]
    rewards, skipped = _rewards(model, repeated, flat, kept, skip_long)
    each = [np.split(values, np.cumsum(sizes)[:-1]) for values in (rewards, skipped)]
    found = {name: None if left_out.any() else given for name, given, left_out in zip(names, *each, strict=True)}
    broken = [name for name, values in found.items() if values is not None and np.isnan(values).any()]
    if broken:
        raise ValueError(f"rewards that are not finite for {len(broken)} items, e.g. {broken[:5]}: the model is broken")
    return {name: None if values is None else values.tolist() for name, values in found.items()}


def _rewards(
    model: Any, prompts: list[Any], responses: list[str], kept: Kept | None, skip_long: bool
) -> tuple[Float[np.ndarray, "response"], Bool[np.ndarray, "response"]]:
    """Known rewards and those of the rest, NaN where there is none; and which texts were left out."""
    keys = [text_key(prompt, text) for prompt, text in zip(prompts, responses, strict=True)] if kept else []
    rewards = np.array([kept.known.get(key, np.nan) for key in keys] if kept else [np.nan] * len(responses))
    skipped = np.zeros(len(responses), dtype=bool)
    rest = np.flatnonzero(np.isnan(rewards))
    if skip_long and hasattr(model, "encode"):  # a ruler reads texts of any length
        encoded = model.encode(_taken(prompts, rest), _taken(responses, rest))
        skipped[rest] = encoded.exceeds(model.max_length)
        rest = rest[~skipped[rest]]
    if len(rest):
        new = _new_rewards(model, _taken(prompts, rest), _taken(responses, rest))
        rewards[rest] = np.where(np.isfinite(new), new, np.nan)
        if kept:
            kept.add({keys[index]: float(value) for index, value in zip(rest, new, strict=True) if np.isfinite(value)})
    return rewards, skipped


def _taken(values: Sequence[Any], indices: Int[np.ndarray, "taken"]) -> list[Any]:
    return [values[index] for index in indices]


def _new_rewards(model: Scorer, prompts: list[Any], responses: list[str]) -> Float[np.ndarray, "response"]:
    rewards = np.asarray(model.score(prompts, responses), dtype=float)
    if rewards.shape != (len(responses),):
        raise ValueError(
            f"expected one reward for each of {len(responses)} responses, got shape {list(rewards.shape)}; "
            "give a model of several attributes one output first (combining.weigh_attributes)"
        )
    return rewards
