"""Implicit rewards: the log-probabilities are those that transformers gives for one text at a time."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rmlib.models import AsGiven, ModelError
from rmlib.models.backbones import BackboneError
from rmlib.models.likelihood import load_implicit

USER = [{"role": "user", "content": "name a fruit"}]
TURNS = [*USER, {"role": "assistant", "content": "fig"}, {"role": "user", "content": "another"}]
PROMPTS = [USER, USER, USER, TURNS, TURNS, USER]
RESPONSES = ["apple", "apple pie", "plum", "lemon", "no", ""]


def log_probability(folder: str, prompt: list[dict[str, str]], response: str) -> float:
    """Sum over the response's bytes and its end token, from transformers' own loss on the one text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text = "".join(f"<|{turn['role']}|>{turn['content']}<|end|>" for turn in prompt)
    text += f"<|assistant|>{response}<|end|>"
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    labels = ids.clone()
    n_counted = len(response) + 1  # one token a byte, and the end of the turn
    labels[0, :-n_counted] = -100
    with torch.no_grad():
        return -network(input_ids=ids, labels=labels).loss.item() * n_counted


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("shared", [True, False])
def test_the_reward_is_beta_times_the_log_ratio_that_transformers_gives(
    tmp_path: Path, kind: str, shared: bool
) -> None:
    policy = tiny.save_language_model(tmp_path / "policy", kind)
    reference = tiny.save_language_model(tmp_path / "reference", kind, seed=1)
    model = load_implicit(policy, reference, beta=0.5)
    assert model.shared
    model.shared = shared
    expected = [
        0.5 * (log_probability(policy, prompt, response) - log_probability(reference, prompt, response))
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    np.testing.assert_allclose(model.score(PROMPTS, AsGiven(RESPONSES)), expected, rtol=1e-5, atol=1e-4)
    assert np.ptp(expected) > 1


def test_without_a_reference_it_is_the_policy_alone_and_says_so(tmp_path: Path) -> None:
    policy = tiny.save_language_model(tmp_path / "policy")
    model = load_implicit(policy, beta=1)
    expected = [log_probability(policy, prompt, text) for prompt, text in zip(PROMPTS, RESPONSES, strict=True)]
    np.testing.assert_allclose(model.score(PROMPTS, AsGiven(RESPONSES)), expected, rtol=1e-5)
    assert model.name == "policy, reference-free"


def test_a_reward_does_not_depend_on_what_it_is_scored_with(tmp_path: Path) -> None:
    """Responses that begin alike share more than their prompt; what they share still counts."""
    model = load_implicit(tiny.save_language_model(tmp_path / "policy"), beta=1)
    together = model.score(PROMPTS, AsGiven(RESPONSES))
    alone = [model.score([prompt], AsGiven([text]))[0] for prompt, text in zip(PROMPTS, RESPONSES, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(together, model.score(PROMPTS, AsGiven(RESPONSES), token_budget=1), rtol=1e-5)


def test_a_policy_that_makes_all_tokens_equally_likely_rewards_brevity_by_log_of_the_vocabulary(tmp_path: Path) -> None:
    model = load_implicit(tiny.save_language_model(tmp_path / "policy"), beta=1)
    torch.nn.init.zeros_(model.networks[0].lm_head.weight)
    counted = np.array([len(text) + 1 for text in RESPONSES])
    np.testing.assert_allclose(model.score(PROMPTS, AsGiven(RESPONSES)), -counted * np.log(270), rtol=1e-5)


def test_a_policy_is_its_own_reference_only_with_rewards_of_zero(tmp_path: Path) -> None:
    policy = tiny.save_language_model(tmp_path / "policy")
    assert load_implicit(policy, policy).score(PROMPTS, AsGiven(RESPONSES)) == pytest.approx(0, abs=1e-9)


def test_models_of_different_tokenizers_are_refused(tmp_path: Path) -> None:
    policy = tiny.save_language_model(tmp_path / "policy")
    reference = tiny.save_language_model(tmp_path / "reference")
    tokenizer = tiny.byte_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(reference)
    with pytest.raises(ModelError, match="policy over reference: their tokenizers differ"):
        load_implicit(policy, reference)


def test_a_classifier_is_no_language_model_and_an_over_long_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"lacks 1 weights of LlamaFor.*, e\.g\. lm_head\.weight"):
        load_implicit(tiny.save_classifier(tmp_path / "c"))
    model = load_implicit(tiny.save_language_model(tmp_path / "policy"))
    with pytest.raises(ModelError, match="exceeds the 512 positions"):
        model.score([USER], ["long " * 200])
