"""Policies: what they draw, and how likely they find it, against transformers' own forward on single texts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import save_backbone, save_language_model
from transformers import AutoModelForCausalLM

from rmlib.alignment.policies import Policy, Samples, valid_tokens
from rmlib.models import RewardModel
from rmlib.models.backbones import BackboneError

PROMPTS = [[{"role": "user", "content": text}] for text in ("Name a fruit.", "Hello, who is there?", "Why")]


@pytest.fixture(scope="module", params=["llama", "qwen3"])
def policy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return Policy.create(save_language_model(tmp_path_factory.mktemp(request.param), request.param))


def drawn(policy: Policy) -> Samples:
    return policy.sample(PROMPTS, 3, max_new_tokens=12, seed=0)


def alone(policy: Policy, prompt: np.ndarray, ids: np.ndarray) -> torch.Tensor:
    """Log-probabilities of a response by a plain forward of one unpadded text."""
    logits = policy.network(torch.from_numpy(np.concatenate([prompt, ids]))[None]).logits[0]
    before = torch.log_softmax(logits[len(prompt) - 1 : -1].float(), dim=-1)
    return before.gather(1, torch.from_numpy(ids)[:, None])[:, 0]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("token_budget", [1, 8192])
def test_log_probabilities_are_those_of_each_text_alone(policy: Policy, shared: bool, token_budget: int) -> None:
    samples, before = drawn(policy), policy.shared
    policy.shared = shared
    with torch.no_grad():
        found, valid = policy.log_probabilities(samples, token_budget=token_budget), valid_tokens(samples)
        policy.shared = before
        for index, ids in enumerate(samples.ids):
            expected = alone(policy, samples.prompt_ids[index // 3], ids)
            torch.testing.assert_close(found[index][valid[index]], expected, atol=1e-5, rtol=1e-5)
    assert (found[~valid] == 0).all()


def test_the_gradient_reaches_the_policy_and_equals_that_of_single_texts(policy: Policy) -> None:
    samples, weight = drawn(policy), policy.network.get_input_embeddings().weight
    together = torch.autograd.grad(policy.log_probabilities(samples).sum(), weight)[0]
    one_by_one = torch.zeros_like(weight)
    for index, ids in enumerate(samples.ids):
        one_by_one += torch.autograd.grad(alone(policy, samples.prompt_ids[index // 3], ids).sum(), weight)[0]
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=1e-4)


def test_a_seed_draws_the_same_responses_and_leaves_the_generator_of_the_caller_alone(policy: Policy) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second, other = (policy.sample(PROMPTS, 2, max_new_tokens=8, seed=seed) for seed in (1, 1, 2))
    assert first.texts == second.texts != other.texts
    torch.testing.assert_close(torch.rand(3), expected)


def test_each_response_is_marked_by_whether_it_ended_and_its_text_leaves_the_end_out(policy: Policy) -> None:
    samples = policy.sample(PROMPTS, 40, max_new_tokens=30, seed=0)
    for ids, ended in zip(samples.ids, samples.ended, strict=True):
        assert (ids == policy.end_id).sum() == int(ended)
        assert ids[-1] == policy.end_id or len(ids) == 30
    assert not any("<|end|>" in text for text in samples.texts)
    counts = samples.counts()
    assert counts["samples"] == 120 and counts["not ended"] == (~samples.ended).sum()


def test_a_response_that_ends_at_once_is_counted_as_empty() -> None:
    nothing = np.array([2])
    samples = Samples([PROMPTS[0]], 2, [np.array([3, 4])], [nothing, nothing], ["", " \n"], np.array([True, True]))
    assert samples.counts() == {"samples": 2, "not ended": 0, "empty": 2}


def test_a_prompt_that_leaves_no_room_is_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="exceed 512"):
        policy.sample(PROMPTS, 1, max_new_tokens=600, seed=0)


def test_a_reward_model_with_another_tokenizer_reads_the_text(policy: Policy, tmp_path: Path) -> None:
    samples = drawn(policy)
    model = RewardModel.create("embedded", seed=0)
    rewards = model.score(samples.repeated_prompts, samples.texts)
    texts = zip(samples.repeated_prompts, samples.texts, strict=True)
    alone = [model.score([prompt], [text])[0] for prompt, text in texts]
    np.testing.assert_allclose(rewards, alone, atol=1e-5)


def test_a_saved_policy_is_read_back_with_the_same_log_probabilities(policy: Policy, tmp_path: Path) -> None:
    policy.save(tmp_path)
    samples = drawn(policy)
    with torch.no_grad():
        torch.testing.assert_close(
            Policy.create(str(tmp_path)).log_probabilities(samples), policy.log_probabilities(samples)
        )


def test_weights_are_read_in_fp32_whatever_they_are_stored_in_and_none_may_be_missing(tmp_path: Path) -> None:
    folder = save_language_model(tmp_path / "halves")
    AutoModelForCausalLM.from_pretrained(folder).bfloat16().save_pretrained(folder)
    assert {weight.dtype for weight in Policy.create(folder).network.parameters()} == {torch.float32}
    with pytest.raises(BackboneError, match="lacks 1 weights of LlamaForCausalLM, e.g. lm_head.weight"):
        Policy.create(save_backbone(tmp_path / "headless"))
