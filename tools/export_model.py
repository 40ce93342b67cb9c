"""A reward model for the hub: transformers' own format, chat template, and a card with its results and their intervals.

    python -m tools.export_model MODEL_FOLDER --out FOLDER --results RECORDS --arm bt_scaled

What is written is loaded again by plain transformers alone, and has to give the rewards that the model gave
(`RewardModel.export`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from rmlib import benchmarks, records
from rmlib.experiments.arms import title
from rmlib.figures import summaries
from rmlib.models import RewardModel, backbones

USAGE = """
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
conversation = [{{"role": "user", "content": "…"}}, {{"role": "assistant", "content": "…"}}]
text = tokenizer.apply_chat_template(conversation, tokenize=False)
reward = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits.item(){bias}
"""


def export_for_hub(
    model: RewardModel,
    folder: str | Path,
    *,
    results: str | Path | None = None,
    arm: str | None = None,
    name: str | None = None,
    licence: str | None = None,
) -> Path:
    """Write a model with its card, check it in plain transformers, and return the folder: all that an upload needs.

    Args:
        results, arm: records of a comparison, and which of its arms this model is: the card shows its results.
        name: what the model will be called (default: the folder's name).
        licence: of the weights, as the hub spells it; it follows from those of backbone and data, so none is guessed.
    Raises:
        ModelError: what the format cannot express (`RewardModel.export`), or a reward that came out otherwise.
        ValueError: only one of `results` and `arm`, or an arm that the records do not have.
    """
    folder = Path(folder)
    if (results is None) != (arm is None):
        raise ValueError("results and arm belong together: name the file of records and the arm that this model is")
    found = "" if results is None else results_section(Path(results), str(arm))
    bias = model.export(folder)
    (folder / "README.md").write_text(card(model, bias, name or folder.name, found, licence))
    return folder


# --- the card ---------------------------------------------------------------------------------------------------------


def card(model: RewardModel, bias: float, name: str, results: str, licence: str | None) -> str:
    """The README of a model: what the hub reads, what it is, how it is used, its results."""
    published = model.name not in (backbones.EMBEDDED, backbones.MINILM) and not Path(model.name).exists()
    about = ModelCardData(
        license=licence,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["reward-model"],
        base_model=model.name if published else None,
    )
    origin = f"`{model.name}`" if published or model.name == backbones.EMBEDDED else "a backbone of its author's own"
    usage = USAGE.format(name=name, bias="" if bias == 0 else " + model.config.reward_bias")
    parts = [
        f"---\n{about.to_yaml()}\n---",
        f"# {name}",
        f"A reward model: a conversation goes in, a number comes out, and of two answers to a prompt the better one "
        f"should get the higher one. Trained from {origin} with rmlib; output: {model.attributes[0]}.",
        f"```python{usage}```",
        "The reward is read at the last token of the assistant's turn. Rewards of different prompts are not on one "
        "scale.",
        results,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def results_section(file: Path, arm: str) -> str:
    """Results of an arm, drawn from records: held-out accuracy beside its rulers, and benchmarks, with intervals."""
    table = summaries.arms_table(file)
    if arm not in table.index:
        raise ValueError(f"{file.name} has no arm {arm!r}; it has: {', '.join(map(str, table.index))}")
    arms = set(summaries.ladder(file)["name"])
    shown = [arm, *(ruler for ruler in table.index if ruler not in arms)]
    lines = [_line(title(row) if row in arms else f"Ruler: {row}", table.loc[row].to_dict()) for row in shown]
    source = summaries.ladder(file)["asked.source"].iloc[-1]
    source = source["title"] if isinstance(source, dict) else str(source)
    n_seeds = int(table.loc[arm].to_dict()["seeds"])
    sections = [
        "## Results",
        f"Held-out accuracy on {source}; mean of {n_seeds} seed{'s' if n_seeds > 1 else ''}, 95 % intervals.",
        "| | accuracy |\n|---|---|\n" + "\n".join(lines),
        *(_benchmark_section(file, kind, arm) for kind in benchmarks.BENCHMARKS),
    ]
    return "\n\n".join(section for section in sections if section)


def _benchmark_section(file: Path, kind: str, arm: str) -> str:
    """The newest scores of an arm on a benchmark; empty where the records have none."""
    table = summaries.optional(file, kind)
    table = table if table.empty else table[table["asked.model"] == arm].sort_values("time", kind="stable")
    if table.empty:
        return ""
    row = table.iloc[-1]
    lines = [_line(section, values) for section, values in row["outcome.sections"].items()]
    seed = "" if records.rows(table)[-1]["seed"] is None else f", seed {row['seed']}"
    return f"{kind} ({row['outcome.label']}){seed}:\n\n| | score |\n|---|---|\n" + "\n".join(lines)


def _line(name: Any, values: dict[str, Any]) -> str:
    return f"| {re.sub(r'[|]', '/', str(name))} | {summaries.shown(values)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a saved reward model for the hub."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a saved reward model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="records of the comparison that it is an arm of")
    parser.add_argument("--arm")
    parser.add_argument("--name", help="what the model will be called (the folder's name)")
    parser.add_argument("--licence", help="of the weights, as the hub spells it")
    given = parser.parse_args(arguments)
    model = RewardModel.load(given.model)
    options = {name: value for name, value in vars(given).items() if name not in ("model", "out")}
    print(export_for_hub(model, given.out, **options))


if __name__ == "__main__":
    main()
