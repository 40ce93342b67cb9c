"""The table that everything flows through, and its views: one row is one prompt with two responses."""

from rmlib.pairs.table import (
    ANNOTATED,
    ATTRIBUTES,
    CONSENSUS,
    DERIVED,
    FEATURES,
    DataError,
    canonical_json,
    carve_selection,
    content_hash,
    left_out,
    make_pairs,
    only_ranked,
    pair_id,
    preference_from_ratings,
    preference_view,
    prompt_key,
    ranking_view,
    rating_view,
    unranked,
)

__all__ = ['ANNOTATED', 'ATTRIBUTES', 'CONSENSUS', 'DERIVED', 'DataError', 'FEATURES', 'canonical_json', 'carve_selection', 'content_hash', 'left_out', 'make_pairs', 'only_ranked', 'pair_id', 'preference_from_ratings', 'preference_view', 'prompt_key', 'ranking_view', 'rating_view', 'unranked']
