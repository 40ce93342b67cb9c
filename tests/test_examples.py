"""Each distinct text of a batch is encoded once, and rewards and gradients stay what they were."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset

from rmlib import pairs
from rmlib.models import RewardModel
from rmlib.models.batches import merged
from rmlib.training.examples import by_prompt, prepare
from rmlib.training.forward import example_losses, rewards_of
from rmlib.training.settings import TrainSettings

ANSWERS = ("ant", "bee and ant", "cow", "doe and hind")


def compared() -> Dataset:
    """Every two of four responses to each of three prompts."""
    rows = [
        {"split": "train", "prompt": [{"role": "user", "content": f"question {n}"}], "response_1": one,
         "response_2": other, "preference": 1 + n % 2}
        for n in range(3) for one, other in combinations(ANSWERS, 2)
    ]  # fmt: skip
    return pairs.make_pairs(rows, origin="own", preferences="annotated")


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_rewards_and_gradients_are_those_of_every_pair_encoded_alone(tmp_path: Path, kind: str) -> None:
    settings = TrainSettings(backbone=tiny.save_backbone(tmp_path, kind), loss="bradley_terry")
    model = RewardModel.create(settings.backbone).eval()
    examples = prepare(model, compared(), settings)
    rows = list(range(len(examples)))
    weight = next(parameter for parameter in model.backbone.parameters() if parameter.ndim > 1)
    found = []
    for batches in ([rows], [[row] for row in rows]):  # together, where texts occur often, and one pair at a time
        model.zero_grad()
        rewards = [rewards_of(model, examples, batch) for batch in batches]
        sum(example_losses(settings, r, examples, b).sum() for r, b in zip(rewards, batches, strict=True)).backward()
        found.append((torch.cat(rewards), weight.grad.clone()))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-3, rtol=1e-3)
    groups, place = merged(examples.groups)
    assert sum(len(group.ids) for group in groups) == 12 and len(groups) == 3 and len(place) == 36


def test_groups_without_a_text_in_common_are_left_as_they_are(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path, "bert"))
    examples = prepare(model, compared().select([0, 6, 12]), TrainSettings(loss="bradley_terry"))
    groups, place = merged(examples.groups)
    assert place is None and all(one is other for one, other in zip(groups, examples.groups, strict=True))


def test_pairs_by_prompt_keep_every_pair_and_leave_no_prompt_twice() -> None:
    table = compared()
    ordered = by_prompt(table, seed=1)
    assert sorted(ordered["pair_id"]) == sorted(table["pair_id"]) and ordered["pair_id"] != table["pair_id"]
    prompts = [prompt[0]["content"] for prompt in ordered["prompt"]]
    assert sum(one != other for one, other in zip(prompts, prompts[1:], strict=False)) == 2
    orders = {tuple(by_prompt(table, seed)["pair_id"]) for seed in range(4)}
    assert len(orders) == 4
    assert np.array_equal(by_prompt(table, 1)["pair_id"], ordered["pair_id"])
