"""Aligning a policy with a reward model: the estimators that the methods of the paper are made of."""

from rmlib.alignment.estimators import (
    best_of_n_divergence,
    best_of_n_expectation,
    dpo_loss,
    generalised_advantages,
    implicit_reward,
    leave_one_out_baseline,
    mean_absolute_divergence,
    ppo_policy_loss,
    ppo_value_loss,
    reinforce_loss,
)

__all__ = [
    "best_of_n_divergence",
    "best_of_n_expectation",
    "dpo_loss",
    "generalised_advantages",
    "implicit_reward",
    "leave_one_out_baseline",
    "mean_absolute_divergence",
    "ppo_policy_loss",
    "ppo_value_loss",
    "reinforce_loss",
]
