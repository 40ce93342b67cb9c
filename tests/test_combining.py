"""Extrapolation, affine calibration and attribute weights against hand arithmetic and numpy."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from rmlib.combining import PAPER_FACTOR, extrapolate, fit_affine, weigh_attributes
from rmlib.models import ModelError, RewardModel

PROMPTS, RESPONSES = [[{"role": "user", "content": "q"}]] * 3, ["one", "two", "three"]


@pytest.fixture
def two(tmp_path: Path) -> tuple[RewardModel, RewardModel]:
    """Two models of the same shape with different weights everywhere."""
    models = [RewardModel.create(tiny.save_backbone(tmp_path / str(seed), seed=seed), seed=seed) for seed in (0, 1)]
    return models[0], models[1]


@pytest.mark.parametrize("factor", [0.0, 1.0, PAPER_FACTOR, 2.0])
def test_extrapolation_moves_every_parameter_along_the_line_from_weak_to_strong(
    two: tuple[RewardModel, RewardModel], factor: float
) -> None:
    weak, strong = two
    old, new, moved = weak.state_dict(), strong.state_dict(), extrapolate(weak, strong, factor).state_dict()
    for name in moved:
        torch.testing.assert_close(moved[name], (1 - factor) * old[name] + factor * new[name])
    assert not torch.equal(old["head.weight"], new["head.weight"])


def test_the_paper_s_factor_is_expo_s_alpha_of_0_52_beyond_the_strong_model(
    two: tuple[RewardModel, RewardModel],
) -> None:
    weak, strong = two
    w, s = weak.head.weight, strong.head.weight
    torch.testing.assert_close(extrapolate(weak, strong, 1.52).head.weight, s + 0.52 * (s - w))


def test_factors_0_and_1_give_the_rewards_of_the_two_models(two: tuple[RewardModel, RewardModel]) -> None:
    weak, strong = two
    for factor, model in ((0.0, weak), (1.0, strong)):
        moved = extrapolate(weak, strong, factor)
        np.testing.assert_allclose(moved.score(PROMPTS, RESPONSES), model.score(PROMPTS, RESPONSES), atol=1e-6)


def test_extrapolation_leaves_both_models_as_they_were_and_has_an_identity_of_its_own(
    two: tuple[RewardModel, RewardModel],
) -> None:
    weak, strong = two
    before = strong.head.weight.clone()
    moved = extrapolate(weak, strong, 1.5)
    assert torch.equal(strong.head.weight, before)
    assert len({moved.identity, weak.identity, strong.identity, extrapolate(weak, strong, 1.6).identity}) == 4


def test_models_of_other_attributes_or_shapes_are_refused(tmp_path: Path, two: tuple[RewardModel, RewardModel]) -> None:
    wide = RewardModel.create(two[0].name, ("helpfulness", "verbosity"))
    with pytest.raises(ModelError, match="attributes differ"):
        extrapolate(two[0], wide, 1.5)
    other = RewardModel.create(tiny.save_backbone(tmp_path / "qwen", "qwen2"))
    with pytest.raises(ModelError, match="differ in name or shape"):
        extrapolate(two[0], other, 1.5)


def test_the_affine_fit_is_least_squares_and_ignores_unrated_responses() -> None:
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=50)
    ratings = 2.5 + 0.7 * rewards + rng.normal(scale=0.1, size=50)
    design = np.stack([rewards, np.ones(50)], axis=1)
    expected = np.linalg.lstsq(design, ratings, rcond=None)[0]
    np.testing.assert_allclose(fit_affine(rewards, ratings), expected)
    with_gaps = np.concatenate([ratings, [np.nan]])
    np.testing.assert_allclose(fit_affine(np.concatenate([rewards, [99.0]]), with_gaps), expected)


@pytest.mark.parametrize(("rewards", "ratings"), [([1.0, 2.0], [1.0]), ([1.0, 1.0], [1.0, 2.0]), ([1.0], [2.0])])
def test_a_line_through_too_little_is_refused(rewards: list[float], ratings: list[float]) -> None:
    with pytest.raises(ValueError, match=r"equally long|at least two"):
        fit_affine(rewards, ratings)


def test_the_outputs_of_a_head_of_two_layers_are_weighted_as_those_of_one(tmp_path: Path) -> None:
    names = ("helpfulness", "correctness", "verbosity")
    model = RewardModel.create(tiny.save_backbone(tmp_path / "b"), names, head_layers=2, seed=2)
    weighted = weigh_attributes(model, {"verbosity": -0.4, "helpfulness": 0.65, "correctness": 0.8})
    expected = model.score(PROMPTS, RESPONSES) @ np.array([0.65, 0.8, -0.4])
    np.testing.assert_allclose(weighted.score(PROMPTS, RESPONSES), expected, atol=1e-6)
    assert model.output_layer.out_features == 3


def test_weighted_attributes_are_the_weighted_sum_of_the_outputs(tmp_path: Path) -> None:
    names = ("helpfulness", "correctness", "verbosity")
    model = RewardModel.create(tiny.save_backbone(tmp_path / "b"), names, seed=2)
    weighted = weigh_attributes(model, {"verbosity": -0.4, "helpfulness": 0.65, "correctness": 0.8})
    expected = model.score(PROMPTS, RESPONSES) @ np.array([0.65, 0.8, -0.4])
    np.testing.assert_allclose(weighted.score(PROMPTS, RESPONSES), expected, atol=1e-6)
    assert weighted.export(tmp_path / "export") == pytest.approx(float(weighted.head.bias))
    with pytest.raises(ModelError, match="weights are for"):
        weigh_attributes(model, {"helpfulness": 1.0})
