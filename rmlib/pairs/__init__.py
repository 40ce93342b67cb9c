"""The table that everything flows through, and its views: one row is one prompt with two responses."""

from rmlib.pairs.schema import ATTRIBUTES, FEATURES
from rmlib.pairs.table import (
    ANNOTATED,
    CONSENSUS,
    DERIVED,
    NONE,
    carve_selection,
    content_hash,
    make_pairs,
    pair_id,
    preference_from_ratings,
)
from rmlib.pairs.views import (
    left_out,
    margins_of_chosen,
    only_ranked,
    preference_view,
    ranking_view,
    rating_view,
    unranked,
)
from rmlib.records.errors import DataError

__all__ = [
    "ANNOTATED", "ATTRIBUTES", "CONSENSUS", "DERIVED", "DataError", "FEATURES", "NONE", "carve_selection",
    "content_hash", "left_out", "make_pairs", "margins_of_chosen", "only_ranked", "pair_id", "preference_from_ratings",
    "preference_view", "ranking_view", "rating_view", "unranked",
]  # fmt: skip
