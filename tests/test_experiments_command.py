"""The comparison from the shell: folds held out whole, inputs in turn, fine-tuning on folds, its figures."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import tiny

from rmlib import figures, records, statistics
from rmlib.experiments import __main__ as command
from rmlib.figures import breakdowns, summaries
from rmlib.records import RecordError
from rmlib.sources import Splits, load_folds

DEBATES, ANSWERS = ("ants", "bees", "cows", "does"), range(5)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNS", "RESULTS", "FIGURES"):
        monkeypatch.setenv(f"RMLIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("RMLIB_COMMAND", "unset")


@pytest.fixture
def debates(tmp_path: Path) -> Path:
    """Four debates of two sides in UKPConvArg1's layout: the argument with more good words wins, by more votes."""
    folder = tmp_path / "debates"
    folder.mkdir()
    arguments, pairs, strict = [], [], ["topic,id,label"]
    for topic in (f"{debate}_{side}" for debate in DEBATES for side in ("no", "yes")):
        for good in ANSWERS:
            words = " ".join("good" if word < good else "bad" for word in ANSWERS)
            arguments.append({"topic": topic, "id": f"{topic}{good}", "text": f"{words} {topic}"})
        for one, other in combinations(ANSWERS, 2):
            lost = 1 if other - one == 1 else 0  # neighbours are less clear
            votes = ["a1"] * lost + ["a2"] * (5 - lost)
            rows = [{"worker": f"w{n}", "value": v, "reason": "r", "competence": "0.5"} for n, v in enumerate(votes)]
            name = f"{topic}{one}_{other}"
            pairs.append({"topic": topic, "id": name, "arg1": f"{topic}{one}", "arg2": f"{topic}{other}", "gold": "a2"})
            pairs[-1]["votes"] = rows
            strict.append(f"{topic},{name},a2")
    for name, table in (("arguments", arguments), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    (folder / "strict.csv").write_text("\n".join(strict) + "\n")
    return folder


def titles(splits: Splits, name: str) -> set[str]:
    return {prompt[0]["content"].split("\n")[0] for prompt in getattr(splits, name)["prompt"]}


def test_folds_hold_out_and_select_on_whole_debates_both_sides_together(debates: Path) -> None:
    folds = load_folds(debates, n_folds=4, n_selection=1)
    assert [len(titles(splits, "test")) for splits in folds] == [1] * 4
    tested = [titles(splits, "test").pop() for splits in folds]
    assert len(set(tested)) == 4
    for fold, splits in enumerate(folds):
        assert titles(splits, "selection") == {tested[(fold + 1) % 4]}
        assert len(titles(splits, "train")) == 2 and len(splits.test) == 20
        assert not titles(splits, "train") & (titles(splits, "selection") | titles(splits, "test"))
    with pytest.raises(ValueError, match="4 folds leave none to train on beside 1 to test and 3 to select"):
        load_folds(debates, n_folds=4, n_selection=3)


def test_inputs_are_tried_in_turn_and_the_choice_among_them_sees_selection_pairs_alone(
    debates: Path, tmp_path: Path
) -> None:
    words = ["frozen", "--data", str(debates), "--backbone", tiny.save_backbone(tmp_path / "bert", "bert")]
    words += ["--folds", "4", "--subset", "strict", "--line", "strict", "--arms", "bt,bt_scaled", "--seeds", "2"]
    command.main([*words, "--steps", "15", "--rates", "0.01,0.03", "--decays", "0", "--inputs", "last,layer1+surface"])
    [file] = (tmp_path / "results").glob("*.jsonl")
    assert file.name == "ukpconvarg1_strict-bert.jsonl"
    written = records.read(file, "arm")
    typed = "python -m rmlib.experiments frozen --data $DATA --backbone $BACKBONE --folds 4 --subset strict"
    typed += " --line strict --arms bt,bt_scaled --seeds 2 --steps 15 --rates 0.01,0.03 --decays 0"
    assert set(written["command"]) == {typed + " --inputs last,layer1+surface"}
    table = breakdowns.inputs_table(file)
    assert {"last layer", "layer 1 + surface", "ruler: longer", "ruler: bag of words"} < set(table.index)
    chosen = []
    parts = {name: part for name, part in written[written["asked.arm"] == "bt"].groupby(
        written["asked.grid"].map(breakdowns.described))}  # fmt: skip
    for fold in range(4):
        found = {name: parts[name].iloc[0]["outcome.training"]["selected"][fold] for name in sorted(parts)}
        best = max(found, key=lambda name: found[name]["accuracy"])
        rows = np.array(parts[best]["outcome.margins"].tolist())[:, 20 * fold : 20 * (fold + 1)]
        chosen.append(rows > 0)
    row = table.loc[breakdowns.CHOSEN]
    right = np.concatenate(chosen, axis=1)
    interval = statistics.bootstrap_interval(right.astype(int), seed=0, groups=np.repeat(np.arange(4), 20))
    assert (row["accuracy"], row["accuracy low"]) == pytest.approx((interval.estimate, interval.low))
    assert figures.FIGURES["inputs"](file).axes
    assert summaries.prompt_groups(file, 80).tolist() == np.repeat(np.arange(4), 20).tolist()
    assert summaries.differences_table(file).loc["bt_scaled", "n"] == 80


def test_a_fine_tuned_arm_on_some_folds_is_one_record_of_their_pooled_pairs(debates: Path, tmp_path: Path) -> None:
    words = ["finetuned", "--data", str(debates), "--backbone", tiny.save_backbone(tmp_path / "bert", "bert")]
    command.main([*words, "--folds", "4", "--only", "0,2", "--arms", "bt", "--seeds", "1", "--steps", "2"])
    [file] = (tmp_path / "results").glob("*.jsonl")
    [record] = records.read(file, "arm").to_dict("records")
    assert record["outcome.n_test"] == 40 and len(record["outcome.margins"]) == 40
    assert [one["n_steps"] for one in record["outcome.training"]["folds"]] == [2, 2]
    assert summaries.arms_table(file).loc["bt_finetuned", "n"] == 40
    with pytest.raises(RecordError, match="no grid of heads"):
        breakdowns.inputs_table(file)


def test_inputs_that_nothing_gives_are_refused() -> None:
    assert command.parse_inputs("layer4+surface") == {"layer": 4, "surface": True}
    for unknown in ("first", "layer", "last+words"):
        with pytest.raises(ValueError, match="are unknown; write last or layer4"):
            command.parse_inputs(unknown)
