"""A reward model behind a server as a scorer: its raw logits, asked for as vLLM and TEI are, or a named error."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from chat_double import ChatDouble, serving
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rmlib import benchmarks
from rmlib.benchmarks import scorers
from rmlib.benchmarks.__main__ import main
from rmlib.benchmarks.endpoint import Endpoint
from rmlib.benchmarks.servers import RewardServer
from rmlib.models import RewardModel

USER = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "name a fruit"}]
ROWS = [
    {"prompt": "Name a fruit.", "chosen": "an apple", "rejected": "no", "id": "a"},
    {"prompt": "Name a tool.", "chosen": "axe", "rejected": "a very long screed", "id": "b"},
]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ChatDouble]]:
    """A server whose answers, as JSON, a function of the request gives; a number is a status."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ExitStack() as open_ones:
        yield lambda reply: open_ones.enter_context(serving(reply, chat=False))


def length(body: dict[str, Any]) -> dict[str, Any]:
    return {"data": [{"index": 0, "probs": [float(len(body["messages"][-1]["content"])) - 5], "num_classes": 1}]}


def test_an_export_behind_vllm_s_protocol_scores_as_the_model_up_to_its_bias(tmp_path: Path, serve: Any) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "backbone", bos=True, pad="<|end|>"), seed=1)
    torch.nn.init.constant_(model.output_layer.bias, 0.5)
    bias = model.export(tmp_path / "out")
    plain, tokenizer = (
        auto.from_pretrained(tmp_path / "out") for auto in (AutoModelForSequenceClassification, AutoTokenizer)
    )

    def classify(body: dict[str, Any]) -> dict[str, Any]:
        """As vLLM has it: the template, special tokens only where asked, and a sigmoid where not switched off."""
        text = tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=body["add_generation_prompt"]
        )
        ids = tokenizer(text, add_special_tokens=body["add_special_tokens"], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = plain(input_ids=ids).logits
        return {"data": [{"probs": (torch.sigmoid(logits) if body["use_activation"] else logits)[0].tolist()}]}

    double, texts = serve(classify), ["fig", "a plum", "a pear, I think"]
    root = double.url.removesuffix("/v1")
    for url in (root, double.url + "/", root + "/classify"):
        rewards = scorers.open_scorer(url).score([USER] * 3, texts)
        np.testing.assert_allclose(rewards + bias, model.score([USER] * 3, texts), atol=1e-5)
    assert {asked["path"] for asked in double.requests} == {"/classify"} and "model" not in double.requests[0]


def test_an_encoder_is_asked_for_raw_scores_of_prompt_and_response_as_two_segments(serve: Any) -> None:
    double = serve(lambda body: [[{"score": len(body["inputs"][0][1]) - 4.5, "label": "LABEL_0"}]])
    rewards = RewardServer(Endpoint(double.url.replace("/v1", "/predict"), "")).score([USER] * 2, ["fig", "a plum"])
    assert rewards.tolist() == [-1.5, 1.5]
    asked = {"inputs": [["Be kind.\nname a fruit", "fig"]], "raw_scores": True, "truncate": False}
    assert asked | {"path": "/predict"} in double.requests and len(double.requests) == 2


def test_the_command_scores_a_benchmark_with_a_server_and_records_neither_its_url_nor_its_key(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RUNS", "RESULTS"):
        monkeypatch.setenv(f"RMLIB_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("THE_KEY", "secret")
    source, out, double = tmp_path / "pairs.jsonl", tmp_path / "scores.jsonl", serve(length)
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    given = ["--served-model", "rm", "--key-variable", "THE_KEY", "--out", str(out), "--record"]
    for option in ("--url", "--model"):
        monkeypatch.delenv("RMLIB_COMMAND", raising=False)
        assert main(["score", "own", "--source", str(source), option, double.url, *given]) == 0
    assert {headers["Authorization"] for headers in double.headers} == {"Bearer secret"}
    assert [asked["model"] for asked in double.requests] == ["rm"] * 8
    assert [json.loads(line)["scores"] for line in out.read_text().splitlines()] == [[3, -3], [-2, 13]]
    assert main(["score", "own", "--source", str(source), "--url", double.url, "--skip-long"]) == 1
    assert "--skip-long: a server does not say which texts fit" in capsys.readouterr().err
    records = (tmp_path / "results" / "scores" / "own.jsonl").read_text()
    assert '"model": "rm"' in records and "127.0.0.1" not in records and "secret" not in records


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (400, "refused: status 400; is the path right, and is no text longer"),
        (307, "refused: status 307"),
        ({"data": [{"probs": [0.2, 0.8]}]}, "nonsense: .* not the score of one label"),
        ([[{"score": 0.2}, {"score": 0.8}]], "nonsense"),
        ({"data": []}, "nonsense"),
        ({"error": "?"}, "nonsense"),
        ("fine", "nonsense"),
    ],
)
def test_an_answer_that_is_not_one_logit_is_a_named_error(serve: Any, answer: Any, problem: str) -> None:
    double = serve(lambda body: answer)
    with pytest.raises(ConnectionError, match=f"the server asked at /classify gives no reward: {problem}"):
        RewardServer(Endpoint(double.url, "", retries=0)).score([USER], ["fig"])
    assert len(double.requests) == 1  # a redirect is not followed


def test_a_softmax_over_the_one_logit_is_refused_and_a_sigmoid_is_warned_of_once(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    softmax = RewardServer(Endpoint(serve(lambda body: {"data": [{"probs": [1.0]}]}).url, ""))
    with pytest.raises(ValueError, match="each reward is 1: the server puts a softmax on the one logit"):
        softmax.score([USER] * 2, ["fig", "plum"])
    near = RewardServer(Endpoint(serve(lambda body: {"data": [{"probs": [len(str(body)) / 1e4]}]}).url, ""))
    with caplog.at_level(logging.WARNING):
        near.score([USER] * 2, ["fig", "plum"]), near.score([USER] * 2, ["fig", "plum"])
    assert caplog.text.count("all of 2 rewards lie in 0..1") == 1


def test_rewards_of_a_server_are_never_kept(tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    double, items = serve(length), benchmarks.load("own", tmp_path / "pairs.jsonl")
    first = benchmarks.score(scorers.open_scorer(double.url), items)
    assert first == benchmarks.score(scorers.open_scorer(double.url), items) and len(double.requests) == 8
    assert not (tmp_path / "runs" / "scores").exists()
