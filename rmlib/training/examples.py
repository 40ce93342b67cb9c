"""Training examples: pairs as tokens with the labels of a loss, and a count of everything left out."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rmlib import losses
from rmlib import pairs as tables
from rmlib.annotations import vote_share
from rmlib.models import ConversationError, Prompt, RewardModel, batches
from rmlib.models.batches import Group
from rmlib.models.features import load_or_compute
from rmlib.pairs.messages import EXTRAS, Response, differ_by, merged
from rmlib.pairs.views import preferences, ratings_of, responses_of
from rmlib.records.hashing import fingerprint, prompt_key
from rmlib.training.runs import TrainingError
from rmlib.training.settings import TrainSettings

logger = logging.getLogger(__name__)


@dataclass
class Examples:
    """Pairs, or rankings of more responses, as tokens with their labels; what was left out or cut is counted."""

    pair_ids: list[str]  # of a ranking: a hash of its prompt
    groups: list[Group]  # of a ranking: the best response first
    strength: Float[Tensor, "pair"]  # positive: the group's first response is preferred; 0: undecided
    ratings: Float[Tensor, "pair sides attribute"]  # both sides of a pair, or 1 for a ranking; NaN: no rating
    left_out: dict[str, int]
    n_cut: int
    target: Float[Tensor, "pair"] | None = None  # probability that the first response is the better one; None: 1
    features: Float[Tensor, "pair response hidden"] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.pair_ids)

    def sizes(self, indices: Iterable[int]) -> list[int]:
        """How many responses some examples have: two, but for rankings and single responses."""
        return [len(self.groups[index].ids) for index in indices]


def prepare(model: RewardModel, pairs: Dataset, settings: TrainSettings) -> Examples:
    """Examples for the settings' loss: decided pairs for a preference loss, rated ones for regression, or rankings.

    Pairs without a label, and those with the same tokens twice, are left out and counted, with the keys of messages
    that the chat template drops. TrainingError, with the pair's id, for one that the template refuses, and for one over
    the length limit unless `settings.overlong` leaves these out, and counts them.
    """
    read = _of_rankings if settings.loss == losses.RANKING_LOSS else _of_pairs
    table = read(pairs, model.attributes, settings)
    sizes = [len(texts) for texts in table.responses]
    prompts = [prompt for prompt, size in zip(table.prompts, sizes, strict=True) for _ in range(size)]
    responses = [response for texts in table.responses for response in texts]
    try:
        encoded = model.encode(prompts, responses)
    except ConversationError as error:
        pair_id = table.pair_ids[np.searchsorted(np.cumsum(sizes), error.row, side="right")]
        raise TrainingError(f"pair {pair_id}: {error.problem}") from error
    groups = batches.group(encoded, sizes)
    limit = min(settings.max_length or model.max_length, model.max_length)
    keep, left_out = [], Counter(table.left_out)
    for index, (item, pair_id) in enumerate(zip(groups, table.pair_ids, strict=True)):
        if len({row.tobytes() for row in item.ids}) < len(item.ids):
            left_out[_why_same(table.responses[index])] += 1
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
        counts = ", ".join(f"{reason} {n}" for reason, n in left_out.items() if n)
        raise TrainingError(f"no pair is left to train on; left out: {counts}. {_remedy(settings, left_out)}")
    rows = np.flatnonzero(np.isin(np.repeat(np.arange(len(sizes)), sizes), keep))
    cut = encoded.cut[rows]
    if left_out or cut.any():
        logger.info("left out: %s; texts cut to fit: %d of %d", dict(left_out), cut.sum(), cut.size)
    examples = Examples(
        [table.pair_ids[index] for index in keep], [groups[index] for index in keep], table.strength[keep],
        table.ratings[keep], dict(left_out), int(cut.sum()), None if table.target is None else table.target[keep],
    )  # fmt: skip
    if settings.trainable == "head":
        features = load_or_compute(model, [prompts[row] for row in rows], [responses[row] for row in rows])
        kept_sizes = examples.sizes(range(len(keep)))
        examples.features = pad_sequence(torch.from_numpy(features).split(kept_sizes), batch_first=True)
    return examples


def _remedy(settings: TrainSettings, left_out: Mapping[str, int]) -> str:
    """What to do where nothing is left to train on: most often, the labels are those of another loss."""
    if left_out.get("no rating"):
        return "Loss 'regression' needs ratings: set loss to 'bradley_terry' to learn from preferences"
    if left_out.get("single responses"):
        return f"Loss {settings.loss!r} compares two responses: set loss to 'regression' to learn from ratings of one"
    if left_out.get("ties") or left_out.get("no preference"):
        return "Give pairs of which one response is better, or ratings with loss set to 'regression'"
    return "Look at the reasons, or give other pairs"


def _why_same(responses: Sequence[Response]) -> str:
    """The reason for which responses with the same tokens are left out, with the keys by which two of a text differ."""
    keys = {key for two in itertools.combinations(responses, 2) for key in differ_by(*two)}
    return "same tokens twice" + (f": {', '.join(sorted(keys))} is what the chat template drops" if keys else "")


@dataclass
class _Labelled:
    """Texts with their labels: the better response first or, for regression, as in the table."""

    pair_ids: list[str]
    prompts: list[Prompt]
    responses: Sequence[tuple[Response, ...]]
    strength: Float[Tensor, "pair"]
    ratings: Float[Tensor, "pair sides attribute"]
    left_out: dict[str, int]
    target: Float[Tensor, "pair"] | None = None


def _of_pairs(pairs: Dataset, attributes: Sequence[str], settings: TrainSettings) -> _Labelled:
    """Both responses of each pair that the loss can learn from: a decided one or, for regression, one with a rating."""
    preference, by_rating = np.nan_to_num(preferences(pairs)), settings.loss == "regression"
    ratings = np.full((len(pairs), 2, len(attributes)), np.nan, dtype=np.float32)
    if by_rating or settings.regression_weight:
        try:
            ratings = ratings_of(pairs, attributes)
        except ValueError as error:
            raise TrainingError(str(error)) from error
    rated = losses.is_rated(torch.from_numpy(ratings).flatten(1)).numpy()
    target = None
    if by_rating:
        keep, turned, strength = rated, np.zeros(len(pairs), dtype=bool), -preference
        left_out = {"no rating": int((~rated).sum())} if not rated.all() else {}
    else:
        keep, turned, left_out = preference != 0, preference > 0, tables.left_out(pairs)
        strength = np.array([0.0, *settings.strength_scale])[np.abs(preference).astype(int)]
    if settings.soft_labels:
        share = vote_share(pairs)
        if np.isnan(share).all():
            raise TrainingError(
                "soft_labels need votes, and no pair has annotations with a valid preference; take a source that keeps "
                "them, or soft_labels=False"
            )
        left_out["no valid vote"] = int((keep & np.isnan(share)).sum())
        keep, target = keep & ~np.isnan(share), np.where(turned, share, 1 - share)
    elif settings.label_smoothing:
        target = np.full(len(pairs), 1 - settings.label_smoothing)
    if settings.regression_weight:
        if not rated[keep].any():
            raise TrainingError("regression_weight needs ratings, and no decided pair has one; leave it at 0")
        if n_unrated := int((~rated[keep]).sum()):
            logger.info("%d of %d pairs have no rating: only their preference counts", n_unrated, keep.sum())
    ratings[turned] = ratings[turned, ::-1]
    ids, prompts = pairs["pair_id"][:], pairs["prompt"][:]
    first, second = responses_of(pairs, 1), responses_of(pairs, 2)
    rows = np.flatnonzero(keep).tolist()
    texts = [(second[row], first[row]) if turned[row] else (first[row], second[row]) for row in rows]
    texts = [two if two[1] is not None else two[:1] for two in texts]  # a single response, for regression
    return _Labelled(
        [ids[row] for row in rows], [prompts[row] for row in rows], texts, torch.from_numpy(strength[keep]).float(),
        torch.from_numpy(ratings[keep]), left_out, None if target is None else torch.from_numpy(target[keep]).float(),
    )  # fmt: skip


def _of_rankings(pairs: Dataset, attributes: Sequence[str], settings: TrainSettings) -> _Labelled:
    """The responses of each prompt that has a complete strict order of three or more, best first."""
    view, left_out = tables.ranking_view(pairs), tables.unranked(pairs)
    if not len(view):
        raise TrainingError(
            f"{losses.RANKING_LOSS} needs prompts whose three or more responses have a complete strict order, and "
            f"there is none (prompts left out: {left_out}); take a source that compares several, or a loss of pairs"
        )
    ids = [fingerprint(prompt_key(prompt)) for prompt in view["prompt"][:]]
    nothing = torch.full((len(view), 1, len(attributes)), torch.nan)
    reasons = {f"prompts: {reason}": count for reason, count in left_out.items()}
    texts = [tuple(merged(*two)) for two in zip(view["responses"][:], view[EXTRAS][:], strict=True)]
    return _Labelled(ids, view["prompt"][:], texts, torch.ones(len(view)), nothing, reasons)


def by_prompt(pairs: Dataset, seed: int) -> Dataset:
    """The pairs, those of one prompt after another: prompts, and the pairs of each, in an order drawn from the seed.

    Trained on without shuffling, a step then holds pairs of few prompts, and each of their texts is encoded once.
    """
    rng = np.random.default_rng(seed)
    number = np.unique([prompt_key(prompt) for prompt in pairs["prompt"][:]], return_inverse=True)[1]
    order = rng.permutation(len(pairs))
    rank = rng.permutation(number.max() + 1)[number[order]]
    return pairs.select(order[np.argsort(rank, kind="stable")])
