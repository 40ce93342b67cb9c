"""A model as the reward of TRL's trainers: a step of GRPO logs what the model gives, and what its export gives."""

import functools
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from rmlib.models import AsGiven, ModelError, RewardModel, reward_function
from rmlib.records.errors import DataError
from rmlib.statistics import Longer

USER = [{"role": "user", "content": "name a fruit"}]


def answer(text: str | None) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


class Noting:
    """A scorer that notes what it is given."""

    def score(self, prompts: list, responses: list) -> np.ndarray:
        self.prompts, self.responses = prompts, responses
        return np.arange(len(responses), dtype=np.float32)


@pytest.fixture
def model(tmp_path: Path) -> RewardModel:
    full = {"vocab_size": len(tiny.SPECIAL) + 256}  # the export needs one row more, for a pad token of its own
    model = RewardModel.create(tiny.save_backbone(tmp_path / "backbone", pad="<|end|>", config=full), seed=1)
    with torch.no_grad():
        model.output_layer.weight.mul_(30)
        model.output_layer.bias.fill_(0.5)
    return model


def test_a_step_of_grpo_logs_the_same_rewards_of_the_model_and_of_its_export(
    model: RewardModel, tmp_path: Path
) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    bias = model.export(tmp_path / "export")
    config = GRPOConfig(
        str(tmp_path / "trl"), max_steps=1, report_to="none", save_strategy="no", use_cpu=True, bf16=False,
        logging_steps=1, disable_tqdm=True, per_device_train_batch_size=4, num_generations=2, max_completion_length=8,
    )  # fmt: skip
    trainer = GRPOTrainer(
        tiny.save_language_model(tmp_path / "policy"), [str(tmp_path / "export"), reward_function(model)], config,
        Dataset.from_list([{"prompt": USER, "subset": "a column of ours"}] * 4),
    )  # fmt: skip
    trainer.train()
    logged = next(row for row in trainer.state.log_history if "rewards/helpfulness/mean" in row)
    assert logged["rewards/export/mean"] + bias == pytest.approx(logged["rewards/helpfulness/mean"], abs=1e-4)
    assert logged["rewards/export/std"] == pytest.approx(logged["rewards/helpfulness/std"], abs=1e-4) and bias == 0.5


def test_every_block_of_python_on_the_page_runs_as_it_stands(
    model: RewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the names of the run and the policy, which are the reader's; on the CPU, where TRL has to be told so."""
    import trl

    page = Path(__file__).resolve().parents[1] / "docs" / "serving.md"
    exporting, plain, training = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    model.save(Path("runs/train/RUN/model"))
    tiny.save_language_model(Path("POLICY"))
    on_cpu = functools.partial(trl.GRPOConfig, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True)
    monkeypatch.setattr(trl, "GRPOConfig", on_cpu)
    found: dict[str, Any] = {}
    for block in (exporting, plain, training):
        exec(compile(block, str(page), "exec"), found)
    question = [{"role": "user", "content": "Is ice cold?"}]
    assert found["reward"] == pytest.approx(model.score([question], ["Yes."])[0], abs=1e-5)
    assert found["offset"] == found["classifier"].config.reward_bias == 0.5
    assert found["trainer"].state.global_step == 1


def test_texts_and_messages_get_the_same_rewards_as_floats_also_where_an_answer_is_empty(model: RewardModel) -> None:
    function, texts = reward_function(model, "ours"), ["fig", "", "a plum"]
    rewards = function(["name a fruit"] * 3, texts, trainer_state=None, completion_ids=[[1]] * 3)
    assert rewards == function(prompts=[USER] * 3, completions=[[answer(text or None)] for text in texts])
    assert rewards == pytest.approx(model.score([USER] * 3, AsGiven(texts)).tolist())
    assert {type(reward) for reward in rewards} == {float} and function.__name__ == "ours" and function([], []) == []


def test_a_completion_of_several_turns_is_rewarded_for_its_last_answer() -> None:
    scorer, called = Noting(), [{"type": "function", "function": {"name": "look", "arguments": {}}}]
    turns = [{"role": "assistant", "tool_calls": called}, {"role": "tool", "content": "3"}, answer("It is three.")]
    assert reward_function(scorer)([USER, USER, [*USER, answer("It ")]], [turns, "fig", "is"]) == [0.0, 1.0, 2.0]
    assert [turn["role"] for turn in scorer.prompts[0]] == ["user", "assistant", "tool"] and "look" in str(
        scorer.prompts
    )
    assert scorer.prompts[1:] == [USER, USER] and scorer.responses == ["It is three.", "fig", "It is"]


def test_a_reward_function_can_be_pickled_where_its_scorer_can() -> None:
    again = pickle.loads(pickle.dumps(reward_function(Longer())))
    assert again.__name__ == "reward" and again(["?"] * 2, ["a", "bb"]) == [1.0, 2.0]


def test_what_has_no_reward_is_a_named_error(tmp_path: Path) -> None:
    function = reward_function(Longer())
    with pytest.raises(ValueError, match="2 prompts for 1 completions"):
        function(["?", "?"], ["a"])
    with pytest.raises(DataError, match="completions, row 2: it does not end with a message of the assistant"):
        function([USER] * 2, ["a", [{"role": "tool", "content": "3"}]])
    with pytest.raises(DataError, match="prompts, row 1: the last message is not the user's"):
        function([[{"role": "system", "content": "Be kind."}]], ["a"])
    for given in (None, float("nan"), ["a"], {"role": "assistant", "content": "a"}):
        with pytest.raises(DataError, match="completions, row 1: .* is neither a text nor a list of messages"):
            function(["?"], [given])
    for prompts, completions in ((None, ["a"]), ("?", "a")):
        with pytest.raises(DataError, match="is no list"):
            function(prompts, completions)
    with pytest.raises(ModelError, match="2 outputs are not one reward"):
        reward_function(RewardModel.create(tiny.save_backbone(tmp_path / "b"), ("a", "b")))
