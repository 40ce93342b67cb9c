"""What people said: annotations to labels, agreement, annotators, justifications, votes and leaderboards."""

from rmlib.annotations.labels import (
    PREFERENCE_STEPS,
    RATING_STEPS,
    SIDES,
    VOTE_PRIOR,
    Steps,
    annotation_frame,
    kappa_of_coincidences,
    label_counts,
    overall_ratings,
    preference_items,
    preference_steps,
    rating_steps,
    vote_share,
    weighted_kappa,
)
from rmlib.pairs.consensus import Value, kept_positions, overall_preference, three_most_similar

__all__ = [
    "PREFERENCE_STEPS", "RATING_STEPS", "SIDES", "Steps", "VOTE_PRIOR", "Value", "annotation_frame",
    "kappa_of_coincidences", "kept_positions", "label_counts", "overall_preference", "overall_ratings",
    "preference_items", "preference_steps", "rating_steps", "three_most_similar", "vote_share", "weighted_kappa",
]  # fmt: skip
