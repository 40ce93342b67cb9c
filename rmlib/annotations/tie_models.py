"""Models of votes with ties (Davidson 1970; Rao & Kupper 1967): probabilities of outcomes and their derivatives."""

import numpy as np
from scipy.special import expit

Outcomes = tuple[np.ndarray, np.ndarray, np.ndarray]  # of won, lost, tied: probability, derivative by d and by the last


def davidson(d: np.ndarray, log_n: np.ndarray) -> Outcomes:
    """Where e^(d/2), e^(-d/2) and n are the odds of won, lost and tied, of strengths that differ by d (logits)."""
    weights = np.exp(np.stack([d / 2, -d / 2, np.broadcast_to(log_n, d.shape)]))
    won, lost, tied = p = weights / weights.sum(axis=0)
    mean = (won - lost) / 2
    by_d = p * (np.stack([np.full_like(d, 0.5), np.full_like(d, -0.5), np.zeros_like(d)]) - mean)
    return p, by_d, np.stack([-won * tied, -lost * tied, tied * (1 - tied)])


def rao_kupper(d: np.ndarray, log_m: np.ndarray) -> Outcomes:
    """Where expit(d - m) and expit(-d - m) are the probabilities of won and lost, the rest that of a tie."""
    m = np.exp(log_m)
    won, lost = expit(d - m), expit(-d - m)
    of_won, of_lost = won * (1 - won), lost * (1 - lost)
    by_m = np.stack([-of_won, -of_lost, of_won + of_lost]) * m  # by log m, which is free of m >= 0
    return np.stack([won, lost, 1 - won - lost]), np.stack([of_won, -of_lost, of_lost - of_won]), by_m
