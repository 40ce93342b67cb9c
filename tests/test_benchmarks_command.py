"""The benchmarks from the shell: what is printed, written and recorded, and what is refused."""

import json
import os
from pathlib import Path

import chat_double
import pytest
import tiny

from rmlib import benchmarks
from rmlib.benchmarks.__main__ import main
from rmlib.models.likelihood import load_implicit
from rmlib.statistics import Longer, wilson_interval

PAIRS = [
    {"prompt": "Name a fruit.", "chosen": "an apple", "rejected": "no", "subset": "food", "id": "a"},
    {"prompt": "Name a tool.", "chosen": "axe", "rejected": "a very long screed", "subset": "things", "id": "b"},
    {"prompt": [{"role": "user", "content": "Name a sea."}], "chosen": "Aral", "rejected": "no", "subset": "food"},
    {
        "prompt": "Name a city.",
        "chosen": [{"role": "assistant", "content": "Oslo"}],
        "rejected": [{"role": "assistant", "content": "Rome"}],
        "subset": "things",
    },
]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RUNS", "RESULTS"):
        monkeypatch.setenv(f"RMLIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.delenv("RMLIB_COMMAND", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # the command leaves its name there for records
    return tmp_path


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return str(tmp_path / "pairs.jsonl")


def recorded(tmp_path: Path, benchmark: str = "own") -> dict:
    [line] = (tmp_path / "results" / "scores" / f"{benchmark}.jsonl").read_text().splitlines()
    return json.loads(line)


def test_own_pairs_are_summarised_by_strict_accuracy_over_all_and_by_subset(
    tmp_path: Path, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", "own", "--source", pairs, "--model", "longer", "--record"]) == 0
    shown = capsys.readouterr().out
    assert "own (own pairs): 4 items, 1 ties" in shown
    assert f"recorded in {tmp_path / 'results' / 'scores' / 'own.jsonl'}\n" in shown
    outcome = recorded(tmp_path)["outcome"]
    assert outcome["subsets"]["food"]["estimate"] == 1.0 and outcome["subsets"]["things"]["estimate"] == 0.0
    score, by_hand = outcome["sections"]["Score"], wilson_interval(2, 4)
    assert score["estimate"] == 0.5 and score["n"] == 4
    assert (score["low"], score["high"]) == pytest.approx((by_hand.low, by_hand.high))


def test_what_is_scored_here_is_summarised_from_its_file_with_the_same_report(
    tmp_path: Path, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "scores.jsonl")
    assert main(["score", "own", "--source", pairs, "--model", "longer", "--out", out]) == 0
    scored = capsys.readouterr().out
    assert main(["summarise", "own", "--source", pairs, "--scores", out]) == 0
    assert capsys.readouterr().out == scored
    first = json.loads(Path(out).read_text().splitlines()[0])
    assert (first["item_id"], first["scores"]) == ("food/a", [8.0, 2.0])


def test_a_classifier_a_policy_and_rewards_with_weights_are_scored_by_name(tmp_path: Path, pairs: str) -> None:
    folder = tiny.save_classifier(tmp_path / "c", labels=("good", "long"))
    policy, reference = (tiny.save_language_model(tmp_path / name, seed=seed) for seed, name in enumerate("pr"))
    source, out = ["--source", pairs], tmp_path / "scores.jsonl"
    assert main(["score", "own", *source, "--model", folder, "--weights", "good=1,long=-2", "--out", str(out)]) == 0
    by_name = out.read_text()
    assert main(["score", "own", *source, "--model", folder, "--weights", "1,-2", "--out", str(out)]) == 0
    assert out.read_text() == by_name
    asked = ["score", "own", *source, "--policy", policy, "--reference", reference, "--out", str(out), "--record"]
    assert main(asked) == 0
    items = benchmarks.load("own", pairs)
    expected = benchmarks.score(load_implicit(policy, reference), items, keep=False)
    for line in map(json.loads, out.read_text().splitlines()):
        assert line["scores"] == pytest.approx(expected[line["item_id"]], rel=1e-5, abs=1e-5)
    assert recorded(tmp_path)["asked"]["model"] == "p over r"


def test_a_record_names_no_path_no_url_and_no_key(tmp_path: Path, pairs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "s3cret")
    with chat_double.serving(lambda _: "[[A]]") as double:
        endpoint = ["--url", double.url, "--judge-model", "judge-1", "--key-variable", "JUDGE_KEY"]
        assert main(["judge", "own", f"--source={pairs}", *endpoint, "--consistency", "--record"]) == 0
    record = recorded(tmp_path)
    text = json.dumps(record)
    assert str(tmp_path) not in text and "127.0.0.1" not in text and "s3cret" not in text
    assert record["asked"]["judge"] == "judge-1" and record["asked"]["source"].startswith("folder sha256:")
    assert record["outcome"]["position_consistency"]["consistent"]["estimate"] == 0.0
    assert record["outcome"]["position_consistency"]["first"]["estimate"] == 1.0
    assert "--source=$SOURCE --url $URL --judge-model judge-1" in record["command"]


def test_problems_of_a_judge_are_printed_and_its_credits_written(
    tmp_path: Path, pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def reply(question: str) -> str | int:
        return 400 if "Name a sea." in question else "I cannot say" if "tool" in question else "[[B]]"

    out = tmp_path / "credits.jsonl"
    with chat_double.serving(reply) as double:
        endpoint = ["--url", double.url, "--judge-model", "judge-1", "--retries", "0"]
        assert main(["judge", "own", "--source", pairs, *endpoint, "--out", str(out)]) == 0
    assert "problems: refused 1, unparsable 1" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["problem"] for row in rows] == [None, "unparsable", "refused", None]
    assert [row["credit"] for row in rows][1:3] == [0.5, 0.5]


def test_of_several_judges_the_majority_decides_and_an_even_number_is_refused(
    pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with chat_double.serving(lambda _: "[[A]]") as double:
        asked = ["judge", "own", "--source", pairs, "--url", double.url, "--judge-model"]
        assert main([*asked, "one", "two", "three"]) == 0
        assert {request["model"] for request in double.requests} == {"one", "two", "three"}
        assert main([*asked, "one", "two"]) == 1
    assert "odd number of judges, not 2" in capsys.readouterr().err


def test_the_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == list(benchmarks.BENCHMARKS)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            ["score", "own", "--model", "longer"],
            "name the file of your pairs, or their folder, as source (in the shell: --source",
        ),
        (
            ["score", "own", "--source", "nowhere.jsonl", "--model", "longer"],
            "nowhere.jsonl: there is no such file or folder",
        ),
        (["score", "own", "--source", "{pairs}", "--model", "nobody/nothing"], "no model 'nobody/nothing'"),
        (["score", "own", "--source", "{pairs}", "--model", "m", "--weights", "a,b"], "neither numbers nor"),
        (
            ["score", "own", "--source", "{pairs}", "--model", "longer", "--parts", "x"],
            "unknown part 'x'; own has train and validation",
        ),
        (["summarise", "own", "--source", "{pairs}", "--scores", "none.csv"], "none.csv: there is no such file"),
        (["judge", "own", "--source", "{pairs}", "--url", "localhost", "--judge-model", "m"], "begins with http"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_without_a_traceback(
    pairs: str, capsys: pytest.CaptureFixture[str], asked: list[str], message: str
) -> None:
    assert main([word.replace("{pairs}", pairs) for word in asked]) == 1
    shown = capsys.readouterr().err
    assert "error: " in shown and message in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rejected": ""}, "the text is empty"),
        ({"chosen": None}, "None is neither a text nor messages"),
        ({"chosen": [{"role": "user", "content": "x"}]}, "the last message is not the assistant's"),
    ],
)
def test_own_pairs_that_cannot_be_used_are_refused_by_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict, message: str
) -> None:
    rows = [PAIRS[0] | change, *PAIRS[1:]]
    (tmp_path / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["score", "own", "--source", str(tmp_path / "bad.jsonl"), "--model", "shorter"]) == 1
    assert message in capsys.readouterr().err


def test_a_stopped_scoring_says_that_it_can_go_on(
    pairs: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Longer, "score", stopped)
    assert main(["score", "own", "--source", pairs, "--model", "longer"]) == 130
    assert "run the same again to go on" in capsys.readouterr().err
