"""The arithmetic of the scoring benchmark, its files, and that both of its ways give the same rewards."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import real_files, scoring
from benchmarks.real_files import FileSet
from rmlib.models.batches import Group


def items(n: int, n_candidates: int) -> FileSet:
    prompts = [[{"role": "user", "content": f"question {number} " * (1 + number % 4)}] for number in range(n)]
    candidates = [
        [f"answer {index} " * (1 + (number + index) % 5) for index in range(n_candidates)] for number in range(n)
    ]
    return FileSet(prompts, candidates)


def row(name: str, tokens: tuple[int, int, int], seconds: tuple[float, float, float]) -> dict[str, object]:
    made: dict[str, object] = {"set": name, "items": 4, "voided": 1, "contended": False}
    for way, n, time in zip(("ours", "official 8", "official 32"), tokens, seconds, strict=True):
        made |= {f"tokens {way}": n, f"seconds {way}": time, f"cpu {way}": 2 * time}
    return made


def test_bound_and_ratio_are_of_sums_and_shares_of_parts() -> None:
    rows = [row("A", (100, 200, 300), (1.0, 1.8, 3.3)), row("A", (100, 160, 200), (1.0, 2.0, 1.5))]
    table = scoring.summary(rows).set_index(["set", "batch"])
    eight, all_sets = table.loc[("A", 8)], table.loc[("all", 32)]
    assert eight["bound"] == pytest.approx(1.8) and eight["ratio"] == eight["cpu ratio"] == pytest.approx(1.9)
    assert eight["share"] == pytest.approx(1.9 / 1.8)
    assert (eight["low"], eight["high"]) == pytest.approx((0.9, 1.25))
    assert all_sets["bound"] == pytest.approx(2.5) and all_sets["ratio"] == pytest.approx(2.4)
    assert all_sets["voided"] == 2 and all_sets["items"] == 8


def test_parts_keep_the_order_of_the_file_and_spread_over_it() -> None:
    parts = scoring.parts_of({"A": items(10, 2)}, None, 4)
    assert [part.start for part in parts] == [0, 4, 8] and len(parts[-1].items.prompts) == 2
    assert [part.start for part in scoring.parts_of({"A": items(20, 2)}, 3, 4)] == [0, 8, 16]


def test_both_ways_give_the_same_rewards_and_count_the_tokens_that_they_compute(tmp_path: Path) -> None:
    some = items(5, 3)
    scoring.write_models(tmp_path, some.texts)
    ours, official = scoring.Ours(tmp_path), scoring.Official(tmp_path, 2)
    rewards = official(some) + official.model.config.reward_bias
    np.testing.assert_allclose(ours(some), rewards, atol=1e-6)
    assert np.ptp(rewards) > 1e-3
    groups: list[Group] = ours.model.groups(*some.flat)
    lengths = np.array([[len(row) for row in item.ids] for item in groups])
    padded = sum(len(batch) * batch.max(axis=0).sum() for batch in (lengths[:2], lengths[2:4], lengths[4:]))
    assert official.n_tokens == padded
    assert ours.n_tokens(some) < lengths.sum() <= padded


def test_files_are_read_in_their_layouts_and_a_missing_one_is_named(tmp_path: Path) -> None:
    judged = "###The instruction to evaluate:\nwhy?\n\n###Response to evaluate:\n{}\n\n###Score Rubrics:\n[…]"
    written = {
        "llmbar/LLMBar__Natural.json.gz": [{"input": "q", "output_1": "a", "output_2": "b", "label": 2}],
        "rm_bench/chat_filtered.json.gz": [{"prompt": "q", "chosen": list("abc"), "rejected": list("def")}],
        "rm_bench/safety-response_filtered.json.gz": [{"prompt": "q", "chosen": list("abc"), "rejected": list("def")}],
        "hhh_alignment/hhh_alignment_eval.json.gz": [
            {"chosen_instruction": judged.format("kind"), "rejected_instruction": judged.format("not\n\nkind")}
        ],
    }
    for name, rows in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(json.dumps(rows).encode()))
    with pytest.raises(FileNotFoundError, match="judgebench"):
        real_files.read_all(tmp_path)
    (tmp_path / "judgebench").mkdir()
    line = json.dumps({"question": "q", "response_A": "a", "response_B": "b", "label": "B>A"}) + "\n"
    (tmp_path / "judgebench" / "one.jsonl.gz").write_bytes(gzip.compress(2 * line.encode()))
    found = real_files.read_all(tmp_path)
    assert found["LLMBar"].candidates == [["a", "b"]] and len(found["JudgeBench"].prompts) == 2
    assert found["RM-Bench chat"].candidates == [list("abcdef")]
    assert found["HHH"].flat == ([[{"role": "user", "content": "why?"}]] * 2, ["kind", "not\n\nkind"])
