"""The training losses, one pure function each: one value per example, the caller reduces.

Notation of HelpSteer2-Preference (arXiv 2410.01257): `r(x, y)` is the scalar reward of response `y` to prompt `x`,
`y_c` the chosen and `y_r` the rejected response, and `m` in {1, 2, 3} how strongly annotators preferred `y_c`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def same_shape(**tensors: Tensor) -> None:
    """Refuse operands that would broadcast: `[batch]` against `[batch, 1]` silently makes a `[batch, batch]` loss."""
    if len({tuple(tensor.shape) for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes must be equal, got {shapes}; squeeze or index before calling the loss")


def bradley_terry_loss(
    reward_chosen: Float[Tensor, "batch"], reward_rejected: Float[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """Regular Bradley-Terry loss, `-log sigmoid(r_c - r_r)`, in nats per pair.

    Raises ValueError where the shapes differ. Source: Bradley & Terry (1952); arXiv 2410.01257, first loss equation.
    """
    same_shape(reward_chosen=reward_chosen, reward_rejected=reward_rejected)
    return -F.logsigmoid(reward_chosen - reward_rejected)


def margin_bradley_terry_loss(
    reward_chosen: Float[Tensor, "batch"], reward_rejected: Float[Tensor, "batch"], strength: Float[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """Margin Bradley-Terry loss, `-log sigmoid(r_c - r_r - m)`: the gap has to exceed the strength `m` (1, 2 or 3).

    Raises ValueError where the shapes differ. Source: arXiv 2410.01257, second loss equation (after Llama 2).
    """
    same_shape(reward_chosen=reward_chosen, reward_rejected=reward_rejected, strength=strength)
    return -F.logsigmoid(reward_chosen - reward_rejected - strength)


def scaled_bradley_terry_loss(
    reward_chosen: Float[Tensor, "batch"], reward_rejected: Float[Tensor, "batch"], strength: Float[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """Scaled Bradley-Terry loss, `-m log sigmoid(r_c - r_r)`: a pair counts as often as its strength `m` says.

    Not renormalised by the mean strength, as in the authors' code: the loss of a batch is about twice the regular one.
    Raises ValueError where the shapes differ. Source: arXiv 2410.01257, third loss equation.
    """
    same_shape(reward_chosen=reward_chosen, reward_rejected=reward_rejected, strength=strength)
    return -strength * F.logsigmoid(reward_chosen - reward_rejected)


def is_rated(rating: Float[Tensor, "batch attribute"]) -> Bool[Tensor, "batch"]:
    """Which examples carry at least one rating; the others have no part in a regression loss or in its count."""
    return ~torch.isnan(rating).all(dim=-1)


def mean_rating(ratings: Float[Tensor, "text attribute"]) -> Float[Tensor, "attribute"]:
    """Where a fresh regression head's bias starts; 0 for an attribute that nobody rated."""
    return torch.nan_to_num(torch.nanmean(ratings, dim=0))


def regression_loss(
    predicted: Float[Tensor, "batch attribute"], rating: Float[Tensor, "batch attribute"]
) -> Float[Tensor, "batch"]:
    """Squared error averaged over the attributes that an example was rated on (NaN = not rated), in rating units².

    An example without any rating gives 0; leave it out of the count (`is_rated`). The original code sums over all
    rated entries of a batch and divides by their number instead, so there an example weighs as much as it has ratings;
    with complete ratings, as in HelpSteer2, the two are equal. Raises ValueError where the shapes differ.
    Source: SteerLM regression, arXiv 2406.08673 section 3 and arXiv 2410.01257.
    """
    same_shape(predicted=predicted, rating=rating)
    rated = ~torch.isnan(rating)
    # nan_to_num before the difference: a NaN that is only masked afterwards still poisons the gradient.
    squared_error = (predicted - torch.nan_to_num(rating)).square() * rated
    return squared_error.sum(dim=-1) / rated.sum(dim=-1).clamp(min=1)


def plackett_luce_loss(
    rewards: Float[Tensor, "batch response"], valid: Bool[Tensor, "batch response"]
) -> Float[Tensor, "batch"]:
    """Negative log-likelihood of a ranking, rewards best first: each response wins against all that follow it.

    `sum over i of logsumexp(r_i, r_i+1, ...) - r_i`, in nats per ranking; entries that are not `valid` (padding of
    shorter rankings) have no part in it. Two responses give the Bradley-Terry loss; the likelihoods of all orders of
    the same responses sum to 1. Raises ValueError where the shapes differ or are not two-dimensional.
    Source: Luce (1959), Plackett (1975).
    """
    same_shape(rewards=rewards, valid=valid)
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be [batch, response], got {list(rewards.shape)}; squeeze or index them")
    rewards = torch.where(valid, rewards, 0.0)  # before anything else: what stands in padding may be NaN
    n = rewards.shape[1]
    follows = torch.ones(n, n, dtype=torch.bool, device=rewards.device).triu()  # a response follows itself
    alone = torch.eye(n, dtype=torch.bool, device=rewards.device)  # so that no row of padding is empty
    against = (follows & valid[:, None, :]) | alone
    rivals = rewards[:, None, :].masked_fill(~against, -torch.inf)
    return ((torch.logsumexp(rivals, dim=2) - rewards) * valid).sum(dim=1)


PAIR_LOSSES: dict[str, Callable[..., Tensor]] = {
    "bradley_terry": bradley_terry_loss,
    "margin_bradley_terry": margin_bradley_terry_loss,
    "scaled_bradley_terry": scaled_bradley_terry_loss,
}
RANKING_LOSS = "plackett_luce"
LOSSES = ("regression", *PAIR_LOSSES, RANKING_LOSS)


def pair_loss(
    name: str,
    reward_chosen: Float[Tensor, "batch"],
    reward_rejected: Float[Tensor, "batch"],
    strength: Float[Tensor, "batch"],
    target: Float[Tensor, "batch"] | None = None,
) -> Float[Tensor, "batch"]:
    """The preference loss called `name` (a key of `PAIR_LOSSES`); the regular one does not look at the strength.

    `target` is the probability that the chosen response is the better one (default: 1). It makes the loss `l` of a pair
    `target * l(r_c, r_r) + (1 - target) * l(r_r, r_c)`: for the regular loss the cross-entropy of `sigmoid(r_c - r_r)`
    with a soft label; for a constant target `1 - epsilon` label smoothing (Szegedy et al., arXiv 1512.00567; for reward
    models arXiv 2401.06080). Raises ValueError for an unknown name, and where the shapes differ.
    """
    if name not in PAIR_LOSSES:
        raise ValueError(f"unknown preference loss {name!r}; known: {', '.join(PAIR_LOSSES)}")
    others = () if name == "bradley_terry" else (strength,)
    as_labelled = PAIR_LOSSES[name](reward_chosen, reward_rejected, *others)
    if target is None:
        return as_labelled
    same_shape(reward_chosen=reward_chosen, target=target)
    return target * as_labelled + (1 - target) * PAIR_LOSSES[name](reward_rejected, reward_chosen, *others)
