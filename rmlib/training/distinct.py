"""Each distinct text of a batch once: pairs that compare the same responses to a prompt share what is encoded.

Where a prompt has K responses and many pairs of them stand in one step, the step costs K texts, not two for every pair
(as InstructGPT trains all comparisons of a prompt together: Ouyang et al., arXiv 2203.02155, section 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from jaxtyping import Int

from rmlib.models.batches import Group, common_prefix
from rmlib.records.hashing import prompt_key


def merged(groups: Sequence[Group]) -> tuple[list[Group], Int[np.ndarray, "response"] | None]:
    """Groups without a text that occurs twice, and where each response of the given ones stands among their texts.

    Groups that have a text in common become one. The place is None, and the groups are those given, where no text
    occurs twice: then nothing changes, to the last bit.
    """
    keys = [[row.tobytes() for row in item.ids] for item in groups]
    if len({key for own in keys for key in own}) == sum(map(len, keys)):
        return list(groups), None
    texts: dict[bytes, tuple[np.ndarray, np.ndarray | None]] = {}
    cluster_of: dict[bytes, list[bytes]] = {}
    for item, own in zip(groups, keys, strict=True):
        types = item.type_ids or (None,) * len(own)
        texts.update(zip(own, zip(item.ids, types, strict=True), strict=True))
        joined = list(dict.fromkeys(key for each in own for key in cluster_of.get(each, [each])))
        cluster_of.update(dict.fromkeys(joined, joined))
    clusters = {id(cluster): cluster for cluster in cluster_of.values()}.values()
    place = {key: index for index, key in enumerate(key for cluster in clusters for key in cluster)}
    return [_group([texts[key] for key in cluster]) for cluster in clusters], np.array(
        [place[key] for own in keys for key in own]
    )


def _group(texts: Sequence[tuple[np.ndarray, np.ndarray | None]]) -> Group:
    ids = tuple(row for row, _ in texts)
    types = tuple(kinds for _, kinds in texts if kinds is not None)
    return Group(ids, common_prefix(ids), types or None)


def by_prompt(pairs: Dataset, seed: int) -> Dataset:
    """The pairs, those of one prompt after another: prompts, and the pairs of each, in an order drawn from the seed.

    Trained on without shuffling, a step then holds pairs of few prompts, and each of their texts is encoded once.
    """
    rng = np.random.default_rng(seed)
    number = np.unique([prompt_key(prompt) for prompt in pairs["prompt"][:]], return_inverse=True)[1]
    order = rng.permutation(len(pairs))
    rank = rng.permutation(number.max() + 1)[number[order]]
    return pairs.select(order[np.argsort(rank, kind="stable")])
