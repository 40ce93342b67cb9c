"""RM-Bench: matrices counted by hand, its files in both layouts, and the published rows."""

import gzip
import json

import numpy as np
import pytest
from written import scores_of_shares, write_rows

from rmlib import benchmarks
from rmlib.benchmarks import rmbench
from rmlib.records.errors import DataError
from rmlib.statistics import Longer, Random, Shorter

DIFFICULTIES = ["easy", "normal", "hard"]


def row(number, *, domain=None):
    texts = {side: [f"{side} {style} {number}." for style in rmbench.STYLES] for side in ("chosen", "rejected")}
    named = {} if domain is None else {"domain": domain}
    return {"id": number, "prompt": f"Question {number}?"} | texts | named


def total(n=2):
    return [row(f"{domain}-{number}", domain=domain) for domain in rmbench.SUBSETS for number in range(n)]


@pytest.fixture
def items(tmp_path):
    return benchmarks.load("rmbench", write_rows(tmp_path, total(), "total_dataset.json"))


def sections(items, scores, **options):
    return benchmarks.summarise(items, scores, partial=True, **options).sections["estimate"]


def test_the_counts_add_up_to_the_official_total():
    assert sum(subset.n for subset in rmbench.SUBSETS.values()) == 1327


@pytest.mark.parametrize(
    ("rewards", "easy", "normal", "hard"),
    [
        ([3, 4, 5, 0, 1, 2], 1, 1, 1),
        ([1, 3, 5, 0, 2, 4], 1, 1, 0),  # style decides between contents: each fancier answer beats the plainer
        ([0, 0, 0, 0, 0, 0], 0, 0, 0),  # ties are wrong
        ([2, 1, 0, 0, 1, 2], 1 / 3, 1 / 3, 1 / 3),
        # Above: chosen 0 beats rejected 0 and 1, chosen 1 beats rejected 0, chosen 2 none.
        ([5, 0, 0, 1, 2, 3], 0, 1 / 3, 2 / 3),
    ],
)
def test_the_matrix_of_one_item_is_that_counted_by_hand(items, rewards, easy, normal, hard):
    scores = {name: [float(reward) for reward in rewards] for name in items["item_id"]}
    table = benchmarks.credits(items, scores)
    assert table.loc[0, DIFFICULTIES].tolist() == pytest.approx([easy, normal, hard])
    assert table.loc[0, "credit"] == pytest.approx((easy + normal + hard) / 3)


def test_safety_pools_its_two_files_and_the_score_is_the_mean_of_four_domains(tmp_path):
    rows = total(1) + [row(f"extra-{k}", domain="safety-response") for k in range(2)]  # safety: 1 + 3 items
    items = benchmarks.load("rmbench", write_rows(tmp_path, rows, "total_dataset.json"))
    good, bad = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    scores = {name: good if name.startswith("safety-response") else bad for name in items["item_id"]}
    found = sections(items, scores)
    overall = dict.fromkeys([*DIFFICULTIES, "Score"], 3 / 16)
    assert found.to_dict() == pytest.approx({"chat": 0, "math": 0, "code": 0, "safety": 3 / 4} | overall)


def test_an_independent_count_over_the_matrices_gives_every_column(items):
    scores = benchmarks.score(Random(5), items, progress=False)
    found, per_domain = sections(items, scores), {}
    for name, rewards in scores.items():
        matrix = np.array([[rewards[i] > rewards[3 + j] for j in range(3)] for i in range(3)])
        per_domain.setdefault(name.split("/")[0].split("-")[0], []).append(matrix)
    means = {domain: np.mean(matrices, axis=0) for domain, matrices in per_domain.items()}
    hard = np.mean([np.triu(matrix, 1).sum() / 3 for matrix in means.values()])
    easy = np.mean([np.tril(matrix, -1).sum() / 3 for matrix in means.values()])
    normal = np.mean([np.trace(matrix) / 3 for matrix in means.values()])
    assert found[DIFFICULTIES].tolist() == pytest.approx([easy, normal, hard])
    assert found["Score"] == pytest.approx((easy + normal + hard) / 3)
    assert found["chat"] == pytest.approx(means["chat"].mean())


def test_the_files_of_one_domain_give_the_same_items_as_the_total(tmp_path):
    for domain in rmbench.SUBSETS:
        of_domain = [row for row in total() if row["domain"] == domain]
        rows = [{key: value for key, value in row.items() if key != "domain"} for row in of_domain]
        write_rows(tmp_path / "apart", rows, f"{domain}_filtered.json.gz")
    apart = benchmarks.load("rmbench", tmp_path / "apart")
    whole = benchmarks.load("rmbench", write_rows(tmp_path / "whole", total(), "total_dataset.json"))
    assert sorted(apart["item_id"]) == sorted(whole["item_id"])
    assert apart[0]["candidates"] == whole[0]["candidates"]
    write_rows(tmp_path / "apart", total(1), "total_dataset.json")
    assert len(benchmarks.load("rmbench", tmp_path / "apart")) == len(rmbench.SUBSETS)  # only the total is read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen": ["a", "b"]}, "total.json, row 2, field 'chosen': .* is not a list of 3 responses"),
        ({"rejected": "text"}, "row 2, field 'rejected': 'text' is not a list of 3 responses"),
        ({"rejected": ["a", "", "b"]}, "row 2, field 'rejected': the text is empty"),
        ({"rejected": ["a", None, "b"]}, "row 2, field 'rejected': None is not a text"),
        ({"domain": "poetry"}, "row 2, field 'domain': unknown domain 'poetry'"),
        ({"id": "chat-0"}, "ids occur twice: chat/chat-0"),
        ({"rejected": ["chosen markdown chat-1.", "x", "y"]}, "chosen equals rejected: chat/chat-1"),
    ],
)
def test_a_row_that_is_not_official_is_refused_with_its_place(tmp_path, change, message):
    rows = total()
    rows[1] |= change
    with pytest.raises(DataError, match=message):
        benchmarks.load("rmbench", write_rows(tmp_path, rows, "total.json"))


def test_a_file_that_is_no_array_of_objects_is_refused(tmp_path):
    (tmp_path / "total.json").write_text("[2]")
    with pytest.raises(DataError, match="total.json, row 1: 2 is not a JSON object"):
        benchmarks.load("rmbench", tmp_path)
    (tmp_path / "total.json").write_text("[{")
    with pytest.raises(DataError, match="total.json: not a JSON array or JSON lines"):
        benchmarks.load("rmbench", tmp_path)


@pytest.mark.parametrize(
    ("domains", "overall"),
    [  # chat, math, code, safety and the overall score in print, percent
        ((69.5, 60.6, 54.5, 95.7), 70.1),  # Skywork-Reward-Llama-3.1-8B
        ((70.7, 64.3, 57.4, 90.3), 70.7),  # Llama-3.1-Nemotron-70B-Reward; by its difficulties 72.2
    ],
)
def test_published_domains_give_the_published_overall_within_rounding(domains, overall):
    chat, math, code, safety = (value / 100 for value in domains)
    shares = {"chat": chat, "math": math, "code": code, "safety-refuse": safety, "safety-response": safety}
    sections = scores_of_shares(rmbench.BENCHMARK, shares)
    assert 100 * sections["Score"] == pytest.approx(overall, abs=0.06)


def test_real_domains_meet_the_rulers_as_an_independent_count_says(shared_data):
    items = benchmarks.load("rmbench", shared_data("rm_bench"), partial=True)
    scores = {ruler: benchmarks.score(ruler, items, progress=False) for ruler in (Longer(), Shorter())}
    reports = {ruler: benchmarks.summarise(items, given) for ruler, given in scores.items()}
    assert reports[Longer()].label == "partial: 2 of 5 subsets (without math, code, safety-refuse)"
    rows = json.loads(gzip.decompress((shared_data("rm_bench") / "chat_filtered.json.gz").read_bytes()))
    longer = [[[len(c) > len(r) for r in row["rejected"]] for c in row["chosen"]] for row in rows]
    assert reports[Longer()].subsets.loc["chat", "estimate"] == pytest.approx(np.mean(longer))
    table = benchmarks.credits(items, scores[Longer()])
    assert table["easy"].mean() > 0.85 > 0.15 > table["hard"].mean()  # the longer style wins, whatever it says
