"""Training examples: pairs as tokens with the labels of a loss, and a count of everything left out."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rmlib import losses
from rmlib import pairs as tables
from rmlib.annotations import vote_share
from rmlib.models import RewardModel, batches
from rmlib.models.batches import Group
from rmlib.models.features import load_or_compute
from rmlib.records.hashing import fingerprint, prompt_key
from rmlib.training.settings import TrainSettings

logger = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """A run that cannot go on: a non-finite loss, an over-long pair, nothing to train on, settings that changed."""


@dataclass
class Examples:
    """Pairs, or rankings of more responses, as tokens with their labels; what was left out or cut is counted."""

    pair_ids: list[str]  # of a ranking: a hash of its prompt
    groups: list[Group]  # of a ranking: the best response first
    strength: Float[Tensor, "pair"]  # positive: the group's first response is preferred; 0: undecided
    ratings: Float[Tensor, "pair sides attribute"]  # both responses of a pair, or 1 for a ranking; NaN: not rated
    left_out: dict[str, int]
    n_cut: int
    target: Float[Tensor, "pair"] | None = None  # probability that the first response is the better one; None: 1
    features: Float[Tensor, "pair response hidden"] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.pair_ids)

    def sizes(self, indices: Iterable[int]) -> list[int]:
        """How many responses some examples have: two, but for rankings."""
        return [len(self.groups[index].ids) for index in indices]


def prepare(model: RewardModel, pairs: Dataset, settings: TrainSettings) -> Examples:
    """Examples for the settings' loss: decided pairs for a preference loss, rated ones for regression, or rankings.

    Pairs without a label, and those with the same tokens twice, are left out and counted; a pair over the length
    limit raises TrainingError with its id, or is left out and counted where `settings.overlong` says so.
    """
    table = _labelled(model, pairs, settings)
    sizes = [len(texts) for texts in table.responses]
    prompts = [prompt for prompt, size in zip(table.prompts, sizes, strict=True) for _ in range(size)]
    responses = [response for texts in table.responses for response in texts]
    encoded = model.encode(prompts, responses)
    groups = batches.group(encoded, sizes)
    limit = min(settings.max_length or model.max_length, model.max_length)
    keep, left_out = [], Counter(table.left_out)
    for index, (item, pair_id) in enumerate(zip(groups, table.pair_ids, strict=True)):
        if len({row.tobytes() for row in item.ids}) < len(item.ids):
            left_out["same tokens twice"] += 1
        elif item.longest > limit and settings.overlong == "error":
            raise TrainingError(
                f"pair {pair_id} has {item.longest} tokens, over the limit of {limit}; raise max_length, shorten it, "
                "or set overlong='leave_out'"
            )
        elif item.longest > limit:
            left_out["over the length limit"] += 1
        else:
            keep.append(index)
    if not keep:
        raise TrainingError(f"no pair is left to train on; left out: {dict(left_out)}")
    rows = np.flatnonzero(np.isin(np.repeat(np.arange(len(sizes)), sizes), keep))
    cut = encoded.cut[rows]
    if left_out or cut.any():
        logger.info("left out: %s; texts cut to fit: %d of %d", dict(left_out), cut.sum(), cut.size)
    examples = Examples(
        [table.pair_ids[index] for index in keep],
        [groups[index] for index in keep],
        table.strength[keep],
        table.ratings[keep],
        dict(left_out),
        int(cut.sum()),
        None if table.target is None else table.target[keep],
    )
    if settings.trainable == "head":
        features = load_or_compute(model, [prompts[row] for row in rows], [responses[row] for row in rows])
        kept_sizes = examples.sizes(range(len(keep)))
        examples.features = pad_sequence(torch.from_numpy(features).split(kept_sizes), batch_first=True)
    return examples


def ratings_of(pairs: Dataset, attributes: Sequence[str]) -> Float[np.ndarray, "pair 2 attribute"]:
    """Ratings of both responses, NaN where nobody rated; raises TrainingError for an unknown attribute."""
    if missing := set(attributes) - set(tables.ATTRIBUTES):
        raise TrainingError(f"no rating is called {sorted(missing)}; known: {', '.join(tables.ATTRIBUTES)}")
    sides = [
        [[(ratings or {}).get(name) for name in attributes] for ratings in pairs[f"ratings_{side}"][:]] for side in "12"
    ]
    return np.array(sides, dtype=np.float32).transpose(1, 0, 2)


@dataclass
class _Labelled:
    pair_ids: list[str]
    prompts: list[Any]
    responses: Sequence[tuple[str, ...]]
    strength: Tensor
    ratings: Tensor
    left_out: dict[str, int]
    target: Tensor | None = None


def _labelled(model: RewardModel, pairs: Dataset, settings: TrainSettings) -> _Labelled:
    """Texts and labels in the order of the loss: the better response first, or as in the table for regression."""
    if settings.loss == losses.RANKING_LOSS:
        return _ranked(model, pairs)
    return _rated(model, pairs) if settings.loss == "regression" else _decided(model, pairs, settings)


def _decided(model: RewardModel, pairs: Dataset, settings: TrainSettings) -> _Labelled:
    """Chosen and rejected response of each decided pair, with its strength, and its soft label where one is wanted."""
    left_out = tables.left_out(pairs)
    if settings.soft_labels:
        pairs, left_out["no valid vote"] = _voted(pairs)
    view = tables.preference_view(pairs)
    texts = [(c[0]["content"], r[0]["content"]) for c, r in zip(view["chosen"][:], view["rejected"][:], strict=True)]
    ratings = torch.full((len(view), 2, len(model.attributes)), math.nan)
    if settings.regression_weight:
        ratings = _ratings_chosen_first(model, pairs)
    scale = (0.0, *settings.strength_scale)
    strength = torch.tensor([scale[int(value)] for value in view["strength"][:]], dtype=torch.float32)
    target = _target(pairs, settings)
    return _Labelled(view["pair_id"][:], view["prompt"][:], texts, strength, ratings, left_out, target)


def _ratings_chosen_first(model: RewardModel, pairs: Dataset) -> Float[Tensor, "decided 2 attribute"]:
    """Ratings of the decided pairs; pairs without any keep their preference loss alone, and are counted in the log."""
    preference = np.array([value or 0 for value in pairs["preference"][:]])
    ratings = ratings_of(pairs, model.attributes)
    ratings[preference > 0] = ratings[preference > 0, ::-1]
    decided = torch.from_numpy(ratings[preference != 0])
    n_rated = int(losses.is_rated(decided.flatten(1)).sum())
    if not n_rated:
        raise TrainingError("regression_weight needs ratings, and no decided pair has one; leave it at 0")
    if n_rated < len(decided):
        logger.info("%d of %d pairs have no rating: only their preference counts", len(decided) - n_rated, len(decided))
    return decided


def _voted(pairs: Dataset) -> tuple[Dataset, int]:
    """The pairs with a valid vote, and how many decided ones have none."""
    unknown = np.isnan(vote_share(pairs))
    if unknown.all():
        raise TrainingError(
            "soft_labels need votes, and no pair has annotations with a valid preference; take a source that keeps "
            "them, or soft_labels=False"
        )
    decided = np.array([bool(preference) for preference in pairs["preference"][:]])
    return pairs.select(np.flatnonzero(~unknown)), int((unknown & decided).sum())


def _target(pairs: Dataset, settings: TrainSettings) -> Tensor | None:
    """Probability that the chosen response of each decided pair is the better one; None where labels are certain."""
    preference = np.array([value or 0 for value in pairs["preference"][:]])
    if settings.soft_labels:
        share = vote_share(pairs)
        target = np.where(preference > 0, share, 1 - share)[preference != 0]
    elif settings.label_smoothing:
        target = np.full((preference != 0).sum(), 1 - settings.label_smoothing)
    else:
        return None
    return torch.from_numpy(target.astype(np.float32))


def _ranked(model: RewardModel, pairs: Dataset) -> _Labelled:
    """The responses of each prompt that has a complete strict order of three or more, best first."""
    view, left_out = tables.ranking_view(pairs), tables.unranked(pairs)
    if not len(view):
        raise TrainingError(
            f"{losses.RANKING_LOSS} needs prompts whose three or more responses have a complete strict order, and "
            f"there is none (prompts left out: {left_out}); take a source that compares several, or a loss of pairs"
        )
    prompts = view["prompt"][:]
    nothing = torch.full((len(view), 1, len(model.attributes)), math.nan)
    return _Labelled(
        [fingerprint(prompt_key(prompt)) for prompt in prompts],
        prompts,
        [tuple(texts) for texts in view["responses"][:]],
        torch.ones(len(view)),
        nothing,
        {f"prompts: {reason}": count for reason, count in left_out.items()},
    )


def _rated(model: RewardModel, pairs: Dataset) -> _Labelled:
    """Both responses of each pair with a rating, as in the table; strength is the preference for the first."""
    view = tables.rating_view(pairs)
    ratings = torch.from_numpy(ratings_of(pairs, model.attributes))
    rated = losses.is_rated(ratings.flatten(0, 1)).view(-1, 2).any(dim=1)
    keep = torch.nonzero(rated).flatten().tolist()
    preference = [-(value or 0) for value in pairs["preference"][:]]
    responses, prompts, ids = view["response"][:], view["prompt"][:], view["pair_id"][:]
    return _Labelled(
        [ids[2 * index] for index in keep],
        [prompts[2 * index] for index in keep],
        [(responses[2 * index], responses[2 * index + 1]) for index in keep],
        torch.tensor(preference, dtype=torch.float32)[keep],
        ratings[keep],
        {"no rating": len(pairs) - len(keep)} if len(keep) < len(pairs) else {},
    )
