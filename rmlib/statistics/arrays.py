"""What every statistic is given: finite numbers, `[item]` or `[seed, item]`, the same items of both."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


def finite(values: ArrayLike, name: str) -> Float[np.ndarray, "..."]:
    """An array of floats; ValueError where it is empty or holds NaN or infinity."""
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError(f"{name} is empty: there is nothing to summarise")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"{name} holds {len(bad)} values that are not finite, the first at {bad[0].tolist()}")
    return array


def seed_by_item(values: ArrayLike, name: str) -> Float[np.ndarray, "seed item"]:
    """`[item]` as one row, `[seed, item]` as it is; ValueError for other shapes and a 2-D array of one seed."""
    array = finite(values, name)
    if array.ndim == 1:
        return array[None]
    if array.ndim != 2:
        raise ValueError(f"{name} must be [item] or [seed, item], got shape {list(array.shape)}")
    if len(array) < 2:
        raise ValueError(f"{name} has one seed: give at least two, or {name}[0] for an interval over items alone")
    return array


def both_correct(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as `[seed, item]` of 0 and 1; ValueError where shapes or values say otherwise."""
    a, b = seed_by_item(correct_a, "correct_a"), seed_by_item(correct_b, "correct_b")
    if a.shape != b.shape:
        raise ValueError(f"correct_a has shape {list(a.shape)}, correct_b {list(b.shape)}: give the same items of both")
    for name, array in {"correct_a": a, "correct_b": b}.items():
        if not np.isin(array, (0, 1)).all():
            raise ValueError(f"{name} must hold 0 and 1 alone; for margins pass margin > 0")
    return a, b


def group_codes(groups: ArrayLike, n_items: int) -> tuple[np.ndarray, int]:
    """Groups as codes 0, 1, ... and their number; ValueError where they are of other items, or all one group."""
    labels = np.asarray(groups)
    if labels.shape != (n_items,):
        raise ValueError(f"groups have shape {list(labels.shape)} for {n_items} items: give one label an item")
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError("all items are of one group: an interval over groups needs at least two")
    return codes, len(names)


def matched_seeds(
    a: Float[np.ndarray, "seed item"], b: Float[np.ndarray, "seed item"]
) -> tuple[Float[np.ndarray, "seed item"], Float[np.ndarray, "seed item"]]:
    """The seeds that both have; a single row (a ruler, one seed) stands against every seed of the other."""
    shared = max(len(a), len(b)) if 1 in (len(a), len(b)) else min(len(a), len(b))
    first, second = (np.repeat(table, shared, axis=0) if len(table) == 1 else table[:shared] for table in (a, b))
    return first, second
