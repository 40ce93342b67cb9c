"""A model for the hub: what plain transformers and TRL make of it, and a card that says what the records say."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import written
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rmlib.models import RewardModel
from tools import export_model

PROMPT = [{"role": "user", "content": "Is ice cold?"}]
ANSWERS = ["Yes.", "It is warmer than steam, so no."]


@pytest.fixture
def model(tmp_path: Path) -> RewardModel:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "backbone", "llama"), seed=1)
    torch.nn.init.constant_(model.head.bias, 0.25)
    return model


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Accuracies of two seeds on four test pairs, and of one ruler."""
    for arm, margins in written.MARGINS.items():
        written.write_arm(tmp_path / "results.jsonl", arm, margins)
    return tmp_path / "results.jsonl"


def test_the_code_on_the_card_gives_the_model_s_rewards(model: RewardModel, tmp_path: Path) -> None:
    folder = export_model.export_for_hub(model, tmp_path / "for the hub", name=str(tmp_path / "for the hub"))
    code = (folder / "README.md").read_text().split("```python")[1].split("```")[0]
    for answer, reward in zip(ANSWERS, model.score([PROMPT] * 2, ANSWERS), strict=True):
        found: dict[str, float] = {}
        one = code.replace("…", PROMPT[0]["content"], 1).replace("…", answer, 1)
        exec(one, found)
        assert found["reward"] == pytest.approx(reward, abs=1e-5)


def test_the_folder_holds_safetensors_and_a_chat_template_and_no_path_of_this_machine(
    model: RewardModel, tmp_path: Path
) -> None:
    folder = export_model.export_for_hub(model, tmp_path / "out", licence="apache-2.0")
    names = {file.name for file in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    small = [file for file in folder.iterdir() if file.suffix in (".md", ".json", ".jinja")]
    assert not [file.name for file in small if str(tmp_path) in file.read_text()]
    about = ModelCard.load(folder / "README.md").data
    assert about.license == "apache-2.0" and about.library_name == "transformers" and about.base_model is None


def test_trl_trains_on_from_the_folder_with_the_rewards_that_the_model_gave(model: RewardModel, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    folder = export_model.export_for_hub(model, tmp_path / "out")
    chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in ANSWERS)
    pair = Dataset.from_list([{"prompt": PROMPT, "chosen": chosen, "rejected": rejected}])
    config = RewardConfig(
        str(tmp_path / "trl"), max_steps=1, report_to="none", save_strategy="no", use_cpu=True, bf16=False,
        logging_steps=1, disable_tqdm=True, eos_token=None, per_device_train_batch_size=1,
    )  # fmt: skip
    trainer = RewardTrainer(
        AutoModelForSequenceClassification.from_pretrained(folder), config, train_dataset=pair,
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip
    trainer.train()
    margin = float(np.subtract(*model.score([PROMPT] * 2, ANSWERS)))
    loss = next(row["loss"] for row in trainer.state.log_history if "loss" in row)
    assert loss == pytest.approx(np.log1p(np.exp(-margin)), abs=1e-4)  # TRL logs four digits


def test_the_card_shows_the_arm_s_accuracy_with_its_interval_from_the_records(
    model: RewardModel, results: Path, tmp_path: Path
) -> None:
    text = (export_model.export_for_hub(model, tmp_path / "out", results=results, arm="bt") / "README.md").read_text()
    assert "| Regular BT | 0.375 [" in text and "mean of 2 seeds" in text  # of 8 margins 3 are positive
    assert written.SOURCE["title"] in text


def test_an_arm_that_the_records_lack_is_an_error_before_anything_is_written(
    model: RewardModel, results: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no arm 'dpo'; it has: regression, bt"):
        export_model.export_for_hub(model, tmp_path / "out", results=results, arm="dpo")
    with pytest.raises(ValueError, match="belong together"):
        export_model.export_for_hub(model, tmp_path / "out", results=results)
    assert not (tmp_path / "out").exists()
