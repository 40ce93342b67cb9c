"""A reward does not depend on what it is batched with: any budget, any order, any mixture of prompts and responses."""

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from rmlib.models import RewardModel

TOLERANCE, LEAST_MARGIN = 1e-5, 1e-4  # fp32
WORDS = ("good", "bad", "ö", "long enough to matter", "2+2", "")


@pytest.fixture(scope="module", params=["shared rows", "padded rows", "encoder"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    """A model in each layout, its rewards spread over some units."""
    kind = "bert" if request.param == "encoder" else "llama"
    made = RewardModel.create(tiny.save_backbone(tmp_path_factory.mktemp(kind), kind), seed=1)
    with torch.no_grad():
        made.head.weight.mul_(30)
    made.shared = request.param == "shared rows"
    return made


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[list[dict[str, str]]], list[str]]:
    """Up to 16 responses to up to 6 prompts, those of one prompt in a row or apart, equal ones among them."""
    prompts, responses = [], []
    for number in range(draw(st.integers(1, 6))):
        question = " ".join(draw(st.lists(st.sampled_from(WORDS), max_size=8)))
        for _ in range(draw(st.integers(1, 4))):
            prompts.append([{"role": "user", "content": f"{number} {question}"}])
            responses.append("answer " + " ".join(draw(st.lists(st.sampled_from(WORDS), max_size=8))))
    order = draw(st.one_of(st.just(list(range(len(prompts)))), st.permutations(range(len(prompts)))))
    return [prompts[index] for index in order], [responses[index] for index in order]


@examples(max_examples=12)
@given(texts=conversations(), budget=st.sampled_from([1, 60, 300, 16_384]))
def test_a_reward_is_the_same_alone_and_in_any_batch(
    model: RewardModel, texts: tuple[list[list[dict[str, str]]], list[str]], budget: int
) -> None:
    together = model.score(*texts, token_budget=budget).astype(float)
    alone = np.array([model.score([prompt], [response])[0] for prompt, response in zip(*texts, strict=True)], float)
    np.testing.assert_allclose(together, alone, atol=TOLERANCE, rtol=0)
    margins, margins_alone = (np.subtract.outer(rewards, rewards) for rewards in (together, alone))
    clear = np.abs(margins_alone) > LEAST_MARGIN
    assert np.array_equal(np.sign(margins[clear]), np.sign(margins_alone[clear]))


def test_the_rewards_above_are_spread_enough_to_show_a_wrong_one(model: RewardModel) -> None:
    prompts = [[{"role": "user", "content": f"{number} {word}"}] for number, word in enumerate(WORDS)]
    assert np.ptp(model.score(prompts, ["answer good"] * len(WORDS))) > 1000 * LEAST_MARGIN


def test_a_reward_is_the_same_on_either_side_of_the_default_budget(model: RewardModel) -> None:
    prompt = [{"role": "user", "content": "tell " * 40}]
    responses = ["x" * (number % 50) + str(number) for number in range(60)]
    default, single = (model.score([prompt] * 60, responses, token_budget=budget) for budget in (None, 100_000))
    np.testing.assert_allclose(default, single, atol=TOLERANCE, rtol=0)
