"""Extrapolation, averages, ensembles, affine maps and attribute weights against hand arithmetic and numpy."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from scipy import optimize

from rmlib.combining import (
    PAPER_FACTOR,
    Ensemble,
    average,
    extrapolate,
    fit_affine,
    fit_attribute_weights,
    rescale,
    weigh_attributes,
)
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
    with pytest.raises(ModelError, match=r"differ in shape|are in one alone"):
        extrapolate(two[0], other, 1.5)


def test_other_dtypes_are_refused(two: tuple[RewardModel, RewardModel]) -> None:
    weak, strong = two
    with pytest.raises(ModelError, match=r"differ in dtype, e.g. backbone.*torch.bfloat16 and torch.float32"):
        extrapolate(RewardModel.create(weak.name, dtype=torch.bfloat16), strong, 1.5)


def test_models_and_folders_do_not_mix(tmp_path: Path, two: tuple[RewardModel, RewardModel]) -> None:
    for weak, strong, folder in [(two[0], tmp_path, tmp_path), (*two, tmp_path), (tmp_path, tmp_path, None)]:
        with pytest.raises(ModelError, match="two models alone, or two folders and the one"):
            extrapolate(weak, strong, 1.5, folder)  # type: ignore[call-overload]


def test_adapters_extrapolate_as_the_weights_that_they_make(tmp_path: Path) -> None:
    backbone = tiny.save_backbone(tmp_path / "b")
    weak, strong = (RewardModel.create(backbone, lora={"r": 2}, seed=seed) for seed in (0, 1))
    generator = torch.Generator().manual_seed(0)
    for model in (weak, strong):
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # peft starts them at 0
                weight.data = torch.randn(weight.shape, generator=generator)
    moved = extrapolate(weak, strong, 1.5)

    def query(model: RewardModel) -> torch.Tensor:
        layer = model.backbone.get_base_model().layers[0].self_attn.q_proj
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        return layer.base_layer.weight + layer.scaling["default"] * (b @ a)

    expected = query(weak) + 1.5 * (query(strong) - query(weak))
    torch.testing.assert_close(moved.backbone.layers[0].self_attn.q_proj.weight, expected)
    moved.save(tmp_path / "moved")
    again = RewardModel.load(tmp_path / "moved")
    np.testing.assert_allclose(again.score(PROMPTS, RESPONSES), moved.score(PROMPTS, RESPONSES), atol=1e-6)


# --- averages and ensembles -------------------------------------------------------------------------------------------


def test_an_average_of_heads_on_one_backbone_gives_the_mean_reward(tmp_path: Path) -> None:
    backbone = tiny.save_backbone(tmp_path / "b")
    models = [RewardModel.create(backbone, seed=seed) for seed in range(3)]
    expected = np.mean([model.score(PROMPTS, RESPONSES) for model in models], axis=0)
    np.testing.assert_allclose(average(models).score(PROMPTS, RESPONSES), expected, atol=1e-6)


def test_an_average_is_the_mean_of_every_tensor_and_needs_two_models(two: tuple[RewardModel, RewardModel]) -> None:
    one, other = (model.state_dict() for model in two)
    for name, value in average(two).state_dict().items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)
    with pytest.raises(ModelError, match="at least two"):
        average(two[:1])


def test_an_average_of_models_of_another_shape_is_refused(tmp_path: Path, two: tuple[RewardModel, RewardModel]) -> None:
    with pytest.raises(ModelError, match=r"differ in shape|are in one alone"):
        average([*two, RewardModel.create(tiny.save_backbone(tmp_path / "qwen", "qwen2"))])


class Line:
    """Rewards that are a straight line of the response's length."""

    def __init__(self, scale: float, offset: float = 0.0) -> None:
        self.scale, self.offset = scale, offset

    def score(self, prompts: list, responses: list[str]) -> np.ndarray:
        return self.offset + self.scale * np.array([len(response) for response in responses])


def test_an_ensemble_of_equal_models_is_the_model(two: tuple[RewardModel, RewardModel]) -> None:
    model = two[0]
    ensemble = Ensemble.fit([model] * 3, PROMPTS, RESPONSES)
    np.testing.assert_allclose(ensemble.score(PROMPTS, RESPONSES), model.score(PROMPTS, RESPONSES), rtol=1e-6)


def test_an_ensemble_is_the_mean_of_standardised_rewards_by_hand() -> None:
    # Lengths 1 and 3 have mean 2 and standard deviation 1, so a text of length 5 stands at +3 and, turned round, at -3.
    ensemble = Ensemble.fit([Line(1.0), Line(-1.0)], PROMPTS[:2], ["a", "abc"])
    np.testing.assert_allclose(ensemble.score(PROMPTS[:1], ["abcde"]), [0.0])


def test_a_reward_of_an_ensemble_does_not_depend_on_what_is_scored_with_it(
    two: tuple[RewardModel, RewardModel],
) -> None:
    ensemble = Ensemble.fit(two, PROMPTS, RESPONSES)
    alone = [ensemble.score(PROMPTS[:1], [response])[0] for response in RESPONSES]
    np.testing.assert_allclose(alone, ensemble.score(PROMPTS, RESPONSES), atol=1e-5)


def test_a_member_without_spread_or_with_several_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"members \[1\] give every reference text the same reward"):
        Ensemble.fit([Line(1.0), Line(0.0, offset=2.0)], PROMPTS, RESPONSES)
    several = RewardModel.create(tiny.save_backbone(tmp_path / "b"), ("helpfulness", "verbosity"))
    with pytest.raises(ValueError, match="one reward a response"):
        Ensemble.fit([several], PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble.fit([], PROMPTS, RESPONSES)


# --- affine maps, attribute weights -----------------------------------------------------------------------------------


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


def test_a_rescaled_model_gives_the_same_rewards_on_another_scale(two: tuple[RewardModel, RewardModel]) -> None:
    model = two[0]
    before = model.score(PROMPTS, RESPONSES)
    moved = rescale(model, 1.5, -2.0)
    np.testing.assert_allclose(moved.score(PROMPTS, RESPONSES), 1.5 * before - 2.0, atol=1e-6)
    np.testing.assert_array_equal(model.score(PROMPTS, RESPONSES), before)
    assert moved.identity != model.identity and moved.attributes == model.attributes


def test_several_outputs_are_not_rescaled_at_once(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "b"), ("helpfulness", "verbosity"))
    with pytest.raises(ModelError, match="2 outputs have no common scale"):
        rescale(model, 1.0, 0.0)


def drawn_preferences(n: int, weights: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Ratings 0 to 4 and preferences drawn from the Bradley-Terry model with these weights."""
    rng = np.random.default_rng(0)
    ratings = rng.integers(0, 5, size=(n, 2, len(weights))).astype(float)
    log_odds = (ratings[:, 1] - ratings[:, 0]) @ np.array(weights)
    return ratings, np.where(rng.random(n) < 1 / (1 + np.exp(-log_odds)), 1.0, -1.0)


def test_fitted_weights_are_those_that_drew_the_preferences() -> None:
    weights = [1.0, 0.5, 0.25, 0.0, -0.4]
    np.testing.assert_allclose(fit_attribute_weights(*drawn_preferences(20_000, weights)), weights, atol=0.06)


def test_fitted_weights_are_the_least_of_the_penalised_loss() -> None:
    ratings, preference = drawn_preferences(300, [1.0, -0.5])
    oriented = (ratings[:, 1] - ratings[:, 0]) * preference[:, None]

    def penalised(weights: np.ndarray) -> float:
        return float(np.logaddexp(0, -oriented @ weights).sum() + weights @ weights / 2)

    expected = optimize.minimize(penalised, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    np.testing.assert_allclose(fit_attribute_weights(ratings, preference), expected.x, atol=1e-5)


def test_fitted_weights_depend_on_neither_order_nor_side_nor_strength_nor_pairs_without_labels() -> None:
    ratings, preference = drawn_preferences(200, [0.8, -0.2, 0.1])
    expected = fit_attribute_weights(ratings, preference)
    order = np.random.default_rng(1).permutation(200)
    np.testing.assert_allclose(fit_attribute_weights(ratings[order], preference[order]), expected, atol=1e-5)
    np.testing.assert_allclose(fit_attribute_weights(ratings[:, ::-1], -preference), expected, atol=1e-5)
    np.testing.assert_allclose(fit_attribute_weights(ratings, 3 * preference), expected, atol=1e-5)
    unrated = np.full((1, 2, 3), 4.0)
    unrated[0, 1, 2] = np.nan
    more = np.concatenate([ratings, unrated, np.ones((2, 2, 3))])
    labels = np.concatenate([preference, [1.0, 0.0, np.nan]])
    np.testing.assert_allclose(fit_attribute_weights(more, labels), expected, atol=1e-5)


def test_separable_preferences_have_finite_weights() -> None:
    ratings = np.array([[[0.0], [1.0]], [[0.0], [2.0]], [[3.0], [1.0]]])
    (weight,) = fit_attribute_weights(ratings, [1, 1, -1])
    # At the optimum the penalty's gradient, the weight, equals that of the loss: sum of d / (1 + exp(w d)).
    assert weight == pytest.approx(sum(d / (1 + np.exp(weight * d)) for d in (1, 2, 2)), abs=1e-5)


def test_weights_need_two_pairs_and_ratings_of_both_responses() -> None:
    with pytest.raises(ValueError, match=r"must be \[pair, 2, attribute\]"):
        fit_attribute_weights(np.zeros((3, 5)), np.ones(3))
    with pytest.raises(ValueError, match="1 of 3 pairs have a preference"):
        fit_attribute_weights(np.ones((3, 2, 5)), [1, 0, np.nan])


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
