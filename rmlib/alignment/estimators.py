"""What policy optimisation minimises, as pure functions: DPO, REINFORCE with a leave-one-out baseline, PPO, best of n.

`logp` is the log-probability of a token that the policy sampled, `valid` marks the tokens of the response, and a
response has *ended* when its last token is the end of the turn. Rewards are in the reward model's logits.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import gammaln
from torch import Tensor

from rmlib import losses
from rmlib.losses import same_shape

PerResponse = Float[Tensor, "response"]
PerToken = Float[Tensor, "response token"]
Valid = Bool[Tensor, "response token"]


def implicit_reward(policy_logp: PerResponse, reference_logp: PerResponse, beta: float) -> PerResponse:
    """The reward that a policy expresses, `beta * (log pi(y|x) - log pi_ref(y|x))`, up to a constant of the prompt.

    Log-probabilities are summed over the response's tokens. Raises ValueError where the shapes differ or `beta` is not
    positive. Source: Rafailov et al., arXiv 2305.18290, equation 5.
    """
    same_shape(policy_logp=policy_logp, reference_logp=reference_logp)
    if not beta > 0:
        raise ValueError(f"beta must be positive, got {beta}")
    return beta * (policy_logp - reference_logp)


def dpo_loss(
    name: str, policy_chosen: PerResponse, policy_rejected: PerResponse, reference_chosen: PerResponse,
    reference_rejected: PerResponse, strength: PerResponse, *, beta: float,
) -> PerResponse:  # fmt: skip
    """A preference loss on implicit rewards: regular, margin or scaled DPO by the `name` of the reward loss.

    The strength `m` of the margin loss is subtracted as it is, not times `beta`. Raises ValueError for an unknown name
    and where the shapes differ. Source: arXiv 2410.01257, section on alignment, with the losses of `rmlib.losses`.
    """
    chosen = implicit_reward(policy_chosen, reference_chosen, beta)
    rejected = implicit_reward(policy_rejected, reference_rejected, beta)
    return losses.pair_loss(name, chosen, rejected, strength)


def mean_absolute_divergence(policy_logp: PerToken, reference_logp: PerToken, valid: Valid) -> PerResponse:
    """Mean over a response's tokens of `|log pi - log pi_ref|`: the penalty of the authors' code, in nats per token.

    Absolute, so it is not an estimate of a KL divergence: it also charges for tokens that became less likely. Raises
    ValueError where the shapes differ, and for a response without a token.
    """
    same_shape(policy_logp=policy_logp, reference_logp=reference_logp, valid=valid)
    count = valid.sum(dim=1)
    if not bool((count > 0).all()):
        empty = torch.nonzero(count == 0).flatten().tolist()
        raise ValueError(f"responses {empty} have no token: leave empty generations out, and count them")
    return torch.where(valid, (policy_logp - reference_logp).abs(), 0.0).sum(dim=1) / count


def leave_one_out_baseline(
    reward: Float[Tensor, "prompt sample"], ended: Bool[Tensor, "prompt sample"]
) -> Float[Tensor, "prompt sample"]:
    """Mean reward of the *other* ended samples of the same prompt.

    Where at most one sample of a prompt has ended the baseline is the sample's own reward: the advantage is 0 and the
    prompt teaches nothing. Raises ValueError where the shapes differ or are not two-dimensional.
    Source: Kool et al. (2019); Ahmadian et al., arXiv 2402.14740; the rule for ended samples is that of the authors'
    code.
    """
    same_shape(reward=reward, ended=ended)
    if reward.ndim != 2:
        raise ValueError(f"reward must be [prompt, sample], got {list(reward.shape)}; reshape it")
    counted = torch.where(ended, reward, 0.0)  # what never ended may carry a NaN
    n_ended = ended.sum(dim=1, keepdim=True)
    mean = (counted.sum(dim=1, keepdim=True) - counted) / (n_ended - ended.long()).clamp(min=1)
    return torch.where(n_ended > 1, mean, reward)


def reinforce_loss(
    logp: PerToken, advantage: PerResponse, valid: Valid, *, reduce: str = "token_mean"
) -> Float[Tensor, ""]:
    """`-advantage * log pi(y|x)`, whose gradient is that of the expected reward.

    `reduce="sum"` sums the log-probabilities of a response and averages over responses: the exact score function.
    `reduce="token_mean"`, as in the authors' code, averages over all tokens of the batch instead, so that a step's size
    does not grow with length; a token of a long response then weighs as much as one of a short response, and the
    gradient is that of the expected reward, up to a factor, only where all responses are equally long.

    Raises ValueError where the shapes do not fit, for a batch without a token, and for an unknown `reduce`.
    """
    same_shape(logp=logp, valid=valid)
    same_shape(advantage=advantage, responses=logp[:, 0])
    terms = -logp * advantage[:, None].detach()
    if reduce == "sum":
        return torch.where(valid, terms, 0.0).sum(dim=1).mean()
    if reduce != "token_mean":
        raise ValueError(f"reduce must be 'sum' or 'token_mean', got {reduce!r}")
    return _token_mean(terms, valid)


def generalised_advantages(
    reward: PerToken, value: PerToken, valid: Valid, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[PerToken, PerToken]:
    """Advantage and return of every token; 0 outside the response. The value after the last token is 0.

    `valid` must be one unbroken run in each row. With `lam=1` the advantage is the discounted sum of the rewards to
    come minus the value; with `lam=0` it is the one-step error. Raises ValueError where the shapes differ.
    Source: Schulman et al., arXiv 1506.02438, equation 16.
    """
    same_shape(reward=reward, value=value, valid=valid)
    reward, value = torch.where(valid, reward, 0.0), torch.where(valid, value, 0.0)
    following = torch.zeros_like(reward[:, 0])
    next_value = torch.zeros_like(following)
    advantages = []
    for token in reversed(range(reward.shape[1])):
        error = reward[:, token] + gamma * next_value - value[:, token]
        following = torch.where(valid[:, token], error + gamma * lam * following, 0.0)
        next_value = value[:, token]
        advantages.append(following)
    advantage = torch.stack(advantages[::-1], dim=1)
    return advantage, advantage + value


def ppo_policy_loss(
    logp: PerToken, old_logp: PerToken, advantage: PerToken, valid: Valid, *, clip: float = 0.2
) -> Float[Tensor, ""]:
    """Clipped surrogate, mean over tokens: no gain from moving a token's probability by more than the ratio `clip`.

    Raises ValueError where the shapes differ, and for a batch without a token. Source: arXiv 1707.06347, equation 7.
    """
    same_shape(logp=logp, old_logp=old_logp, advantage=advantage, valid=valid)
    ratio = torch.where(valid, logp - old_logp, 0.0).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -_token_mean(gain, valid)


def ppo_value_loss(
    value: PerToken, old_value: PerToken, returns: PerToken, valid: Valid, *, clip: float = 0.2
) -> Float[Tensor, ""]:
    """Half the squared error of the value, the larger of that and the one after clipping its move; mean over tokens.

    Raises ValueError where the shapes differ, and for a batch without a token.
    """
    same_shape(value=value, old_value=old_value, returns=returns, valid=valid)
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    error = torch.maximum((value - returns).square(), (clipped - returns).square())
    return 0.5 * _token_mean(error, valid)


def best_of_n_expectation(
    proxy: Float[np.ndarray, "prompt sample"], gold: Float[np.ndarray, "prompt sample"], n: int
) -> Float[np.ndarray, "prompt"]:
    """Expected gold reward of the best of n samples by the proxy, estimated from all samples of each prompt.

    The average over all subsets of n samples: the sample of proxy rank i (from below, 1-based) is the best of
    `C(i-1, n-1)` of the `C(N, n)` subsets. Samples of equal proxy share their ranks' weights. Raises ValueError where
    the shapes differ, or n is not in 1..N. Source: Nakano et al., arXiv 2112.09332, appendix (unbiased estimator).
    """
    if proxy.shape != gold.shape or proxy.ndim != 2:
        raise ValueError(f"proxy and gold must both be [prompt, sample], got {proxy.shape} and {gold.shape}")
    total = proxy.shape[1]
    if not 1 <= n <= total:
        raise ValueError(f"n must be from 1 to the {total} samples of a prompt, got {n}")
    rank = np.arange(1, total + 1)
    weight = np.zeros(total)
    weight[n - 1 :] = np.exp(_log_binomial(rank[n - 1 :] - 1, n - 1) - _log_binomial(np.array([total]), n))
    return np.array([_weighted(p, g, weight) for p, g in zip(proxy, gold, strict=True)])


def best_of_n_divergence(n: int) -> float:
    """KL divergence of the best-of-n distribution from the policy, `log n - (n - 1) / n` nats, for distinct rewards.

    An upper bound where rewards repeat. Raises ValueError for n below 1. Source: Stiennon et al., arXiv 2009.01325;
    bound: Beirami et al., arXiv 2401.01879.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return math.log(n) - (n - 1) / n


def _weighted(proxy: np.ndarray, gold: np.ndarray, weight: np.ndarray) -> float:
    """Sum of gold by rank of proxy, equal proxies sharing the mean weight of the ranks that they fill."""
    order = np.argsort(proxy, kind="stable")
    _, start, count = np.unique(proxy[order], return_index=True, return_counts=True)
    shared = np.add.reduceat(weight, start) / count
    return float((gold[order] * np.repeat(shared, count)).sum())


def _log_binomial(n: np.ndarray, k: int) -> np.ndarray:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _token_mean(values: PerToken, valid: Valid) -> Float[Tensor, ""]:
    if not bool(valid.any()):
        raise ValueError("no response of the batch has a token: leave empty generations out, and count them")
    return torch.where(valid, values, 0.0).sum() / valid.sum()
