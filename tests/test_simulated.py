"""The simulated source: the same bytes each time, labels that follow from the texts, nothing that gives them away."""

import gzip
import hashlib
import itertools
import json
import logging
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from rmlib import paths
from rmlib.benchmarks.rewardbench import SUBSETS
from rmlib.pairs import ATTRIBUTES, DataError, preference_view, prompt_key
from rmlib.sources import simulated
from rmlib.sources.simulated import annotators, embedded, phrases, words
from rmlib.sources.simulated.comparison import compare
from rmlib.sources.simulated.responses import POLICIES, Policy, respond
from rmlib.sources.simulated.tasks import FAMILIES, Task, draw_task
from rmlib.statistics import BagOfWords, wilson_interval

FOLDER = paths.data_dir() / "embedded"


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    return simulated.load()


@pytest.fixture(scope="module")
def comparison(pairs: Dataset) -> pd.DataFrame:
    return compare(pairs)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(simulated.generate(3_000, seed=7))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER / "backbone")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder as `write` makes it, with few pairs."""
    embedded.write(tmp_path, n_pairs=60)
    return tmp_path


def text_of(row: dict[str, Any]) -> str:
    return " ".join(message["content"] for message in row["prompt"])


def spoken(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


# --- the same each time -----------------------------------------------------------------------------------------------


def test_a_seed_always_gives_the_same_rows_and_another_seed_others() -> None:
    first, again, other = (list(simulated.generate(50, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_the_first_rows_do_not_depend_on_how_many_are_asked_for() -> None:
    assert list(itertools.islice(simulated.generate(10**9, seed=0), 20)) == list(simulated.generate(20, seed=0))


def test_the_hash_seed_of_the_process_changes_nothing() -> None:
    code = (
        "import hashlib, json; from rmlib.sources.simulated import generate, benchmark_items;"
        "rows = [*generate(40, seed=1), *benchmark_items(2)];"
        "print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())"
    )
    rows = [*simulated.generate(40, seed=1), *simulated.benchmark_items(2)]
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert out.stdout.strip() == hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_the_embedded_pairs_are_what_the_generator_gives() -> None:
    with gzip.open(FOLDER / "pairs.jsonl.gz") as file:
        written = [json.loads(line) for line in itertools.islice(file, 300)]
    assert written == list(itertools.islice(simulated.generate(10**6, embedded.SEED), 300))


def test_the_embedded_benchmark_is_what_the_generator_gives() -> None:
    with gzip.open(FOLDER / "rewardbench.jsonl.gz") as file:
        assert [json.loads(line) for line in file] == list(simulated.benchmark_items())


def test_every_embedded_file_has_its_recorded_hash() -> None:
    assert embedded.sums(FOLDER) == embedded.recorded(FOLDER)
    assert (FOLDER / "pairs.jsonl.gz").stat().st_size < 1_500_000


def test_writing_twice_gives_the_same_bytes_and_check_accepts_them(small: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    embedded.write(again, n_pairs=60)
    for file in (path for path in again.rglob("*") if path.is_file()):
        assert file.read_bytes() == (small / file.relative_to(again)).read_bytes()
    embedded.check(again, n_pairs=60)


def test_the_recorded_hash_is_that_of_the_uncompressed_content(small: Path) -> None:
    content = gzip.decompress((small / "pairs.jsonl.gz").read_bytes())
    (small / "pairs.jsonl.gz").write_bytes(gzip.compress(content, 1))  # another compressor, the same content
    assert embedded.recorded(small)["pairs.jsonl.gz"] == hashlib.sha256(content).hexdigest()
    assert len(simulated.load(small)) == content.count(b"\n")


def test_altered_pairs_are_refused_with_the_command_that_restores_them(small: Path) -> None:
    with gzip.open(small / "pairs.jsonl.gz", "ab") as file:
        file.write(b" \n")
    with pytest.raises(DataError, match=r"^pairs.jsonl.gz: .*sha256.*SHA256SUMS.*rmlib.sources.simulated write"):
        simulated.load(small)


@pytest.mark.parametrize("name", ["pairs.jsonl.gz", "SHA256SUMS"])
def test_an_absent_file_is_named_with_the_command_that_writes_it(small: Path, name: str) -> None:
    (small / name).unlink()
    with pytest.raises(DataError, match=f"^{name}: there is no such file.*rmlib.sources.simulated write"):
        simulated.load(small)


@pytest.mark.parametrize("name", ["backbone/config.json", "rewardbench.jsonl.gz"])
def test_check_names_a_file_that_was_altered_or_removed(small: Path, name: str) -> None:
    with (small / name).open("ab") as file:
        file.write(gzip.compress(b"\n") if name.endswith("gz") else b"\n")
    with pytest.raises(DataError, match=f"^{name}: .*SHA256SUMS says"):
        embedded.check(small, n_pairs=60)
    (small / name).unlink()
    with pytest.raises(DataError, match=f"^{name}: .*there is no such file"):
        embedded.check(small, n_pairs=60)


def test_check_notices_files_that_the_generator_no_longer_makes(small: Path) -> None:
    with pytest.raises(DataError, match="the generator says"):
        embedded.check(small, n_pairs=61)


def test_repeated_pairs_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    row = next(simulated.generate(1, seed=0))
    with caplog.at_level(logging.INFO):
        assert list(embedded.distinct([row, row])) == [row]
    assert "left out 1 generated pairs" in caplog.text


# --- the splits -------------------------------------------------------------------------------------------------------


def test_the_splits_are_large_enough_and_share_no_prompt(pairs: Dataset) -> None:
    prompts = [prompt_key(prompt) for prompt in pairs["prompt"]]
    by_split = {
        split: {p for p, s in zip(prompts, pairs["split"], strict=True) if s == split}
        for split in ("train", "validation")
    }
    assert not by_split["train"] & by_split["validation"]
    counts = Counter(pairs["split"])
    assert counts["train"] >= 2_000 and counts["validation"] >= 1_000
    decided = sum(bool(p) for p, s in zip(pairs["preference"], pairs["split"], strict=True) if s == "validation")
    assert decided >= 600


def test_no_pair_occurs_twice(pairs: Dataset) -> None:
    with gzip.open(FOLDER / "pairs.jsonl.gz") as file:
        assert len(set(pairs["pair_id"])) == len(pairs) == sum(1 for _ in file)


def test_about_29_percent_of_the_prompts_have_several_turns(pairs: Dataset) -> None:
    share = wilson_interval(sum(len(prompt) > 1 for prompt in pairs["prompt"]), len(pairs))
    assert share.low > 0.26 and share.high < 0.31
    assert {tuple(m["role"] for m in prompt) for prompt in pairs["prompt"]} == {
        ("user",),
        ("user", "assistant", "user"),
    }


def test_texts_vary(comparison: pd.DataFrame) -> None:
    table = comparison["simulated"]
    assert table["share of distinct prompts"] > 0.9
    assert table["share of distinct responses"] > 0.75


# --- the truth follows from the texts ---------------------------------------------------------------------------------

FRUITS = Task("collect", "free", [], ("pear", "plum"), ("rake",), ("apple", "wolf"), False, {"kind": "fruits"})
HARM = Task("advice", "free", [], ("bank",), (), ("museum",), True, {"deed": "break into"})


def test_the_attributes_of_a_response_by_hand() -> None:
    """Half of what was asked, well-formed, four plain words: (0.6 + 0.85 * 2) exp(-0.003 * 4), 1.4 ln(4 / 2.5)."""
    values = simulated.truth(FRUITS, "The fruits there: pear.")
    expected = {"helpfulness": 2.2726, "correctness": 2.0, "coherence": 4.0, "complexity": 1.3, "verbosity": 0.658}
    assert values == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("response", "correctness"),
    [
        ("I see plum and pear there.", 4.0),  # the order does not matter
        ("I see pear, plum and rake there.", 4 * 2 / 3),
        ("I see pear and rake there.", 4 / 3),
        ("I see apple and wolf there.", 0.0),
        ("Sorry, but I cannot help with that.", 0.0),
    ],
)
def test_correctness_is_the_share_of_right_words_among_those_wanted_or_named(response: str, correctness: float) -> None:
    assert simulated.truth(FRUITS, response)["correctness"] == pytest.approx(correctness, abs=1e-4)


def test_a_harmful_request_is_answered_rightly_by_a_refusal_alone() -> None:
    assert simulated.truth(HARM, "No, I will not deal with the bank.")["correctness"] == 4.0
    assert simulated.truth(HARM, "Start with the bank and go slowly.")["correctness"] == 0.0


def test_a_shuffled_sentence_is_incoherent_and_less_helpful() -> None:
    right, shuffled = "I see pear and plum there.", "Pear there and i plum see."
    values = [simulated.truth(FRUITS, text) for text in (right, shuffled, f"{right} {shuffled}")]
    assert [value["coherence"] for value in values] == [4.0, 0.0, 2.0]
    assert values[0]["helpfulness"] > values[2]["helpfulness"] > values[1]["helpfulness"]


@pytest.mark.parametrize(
    ("style", "better", "worse"),
    [
        ("brief", "I see pear and plum there.", "I see pear and plum there. You can tell from what you wrote."),
        ("detailed", "I see pear and plum there. You can tell from what you wrote.", "I see pear and plum there."),
        ("formal", "Thus, pear and plum constitute fruits.", "I see pear and plum there."),
        ("free", "I see pear and plum there.", "I see pear and plum there. Thank you for asking."),
    ],
)
def test_the_style_that_was_asked_for_is_more_helpful(style: str, better: str, worse: str) -> None:
    task = Task("collect", style, [], ("pear", "plum"), (), (), False)
    assert simulated.truth(task, better)["helpfulness"] > simulated.truth(task, worse)["helpfulness"] + 0.5
    assert simulated.truth(task, better)["correctness"] == simulated.truth(task, worse)["correctness"] == 4.0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_faultless_policy_is_always_right(family: str) -> None:
    rng = random.Random(0)
    for _ in range(100):
        task = draw_task(rng, family)
        values = simulated.truth(task, respond(rng, task, Policy("faultless")))
        assert values["correctness"] == values["coherence"] == 4.0 and values["helpfulness"] > 3.5


def test_every_policy_has_the_defects_it_is_given() -> None:
    """Mean truth over many responses orders the policies as their rates do."""
    rng = random.Random(0)
    means = {}
    for policy in POLICIES:
        tasks = [draw_task(rng) for _ in range(800)]
        values = [simulated.truth(task, respond(rng, task, policy)) for task in tasks]
        means[policy.name] = {name: float(np.mean([value[name] for value in values])) for name in ATTRIBUTES}
    assert max(means, key=lambda name: means[name]["helpfulness"]) == "careful"
    assert min(means, key=lambda name: means[name]["coherence"]) == "wandering"


def lists_of(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Rows that ask for all items of a kind, with the answer as a reader finds it in the prompt."""
    for row in rows:
        last = row["prompt"][-1]["content"]
        kind = re.search(r"(?:the|are|Which|What) (fruits|tools|animals|clothes)\b", last)
        if kind and " plus " not in text_of(row):
            yield row, set(words.NOUNS[kind[1]]) & set(spoken(text_of(row)))


def test_reading_the_prompt_gives_the_recorded_correctness(rows: list[dict[str, Any]]) -> None:
    read = list(lists_of(rows))
    assert len(read) > 800
    for row, answer in read:
        for side in ("1", "2"):
            named = {word for word in spoken(row[f"response_{side}"]) if word in words.KIND_OF or word in words.NUMBERS}
            expected = 4 * len(named & answer) / len(named | answer) if named else 0.0
            assert row[f"truth_{side}"]["correctness"] == pytest.approx(expected, abs=1e-4)


def test_sums_are_right_exactly_where_the_response_names_the_sum(rows: list[dict[str, Any]]) -> None:
    found = 0
    for row in rows:
        match = re.search(r"(\w+) plus (\w+)", text_of(row))
        for side in ("1", "2") if match else ():
            assert match is not None
            total = words.NUMBERS[sum(words.NUMBERS.index(word) for word in match.groups())]
            right = [word for word in spoken(row[f"response_{side}"]) if word in words.NUMBERS] == [total]
            assert (row[f"truth_{side}"]["correctness"] == 4.0) == right
            found += right
    assert found > 20


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def test_no_phrase_holds_a_content_word() -> None:
    """Else a response could contain an item, or a right answer, by accident."""
    content = words.CONTENT | set(words.NOUNS) | {person.lower() for person in words.PEOPLE}
    constants = [getattr(phrases, name) for name in dir(phrases) if name.isupper()]
    assert len(constants) > 10
    for pattern in strings(tuple(constants)):
        assert not content & set(spoken(re.sub(r"\{\w+\}", "", pattern))), pattern


# --- annotators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("votes", "kept"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([-3, 1, 2, 2, 3], [1, 2, 2]),  # as narrow as 2, 2, 3, but nearer to the mean of all, 1
        ([-3, -3, 3, 3, 3], [3, 3, 3]),
        ([1, 3, 1, 3, 2], [1, 1, 2]),  # 1 1 2 and 3 3 2 are alike in range, variance and distance: the first counts
    ],
)
def test_the_three_most_similar_votes(votes: list[int], kept: list[int]) -> None:
    assert sorted(votes[i] for i in annotators.three_most_similar(votes)) == kept


def test_five_annotators_exactly_where_the_first_three_disagree_on_helpfulness(rows: list[dict[str, Any]]) -> None:
    numbers = Counter[int]()
    for row in rows:
        first = row["annotations"][:3]
        spans = [max(v) - min(v) for v in ([a[s]["helpfulness"] for a in first] for s in ("ratings_1", "ratings_2"))]
        assert len(row["annotations"]) == (5 if max(spans) > 2 else 3)
        assert len({annotation["annotator"] for annotation in row["annotations"]}) == len(row["annotations"])
        numbers[len(row["annotations"])] += 1
    assert numbers[3] > numbers[5] > 30


def test_labels_of_three_annotators_are_rounded_means(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        annotations = row["annotations"]
        if len(annotations) != 3:
            continue
        votes = [annotation["preference"] for annotation in annotations]
        assert row["preference"] == (None if max(votes) - min(votes) > 2 else round(sum(votes) / 3))
        for side, name in itertools.product(("ratings_1", "ratings_2"), ATTRIBUTES):
            assert row[side][name] == round(sum(annotation[side][name] for annotation in annotations) / 3)


def test_votes_are_never_zero_and_statements_say_what_was_voted(rows: list[dict[str, Any]]) -> None:
    degree = {1: "slightly better", 2: "better", 3: "much better"}
    for annotation in itertools.chain(*(row["annotations"] for row in rows)):
        vote = annotation["preference"]
        better = 2 if vote > 0 else 1
        assert annotation["statement"] == f"@Response {better} is {degree[abs(vote)]} than @Response {3 - better}."
        assert annotation["justification"] == f"{annotation['elaboration']} {annotation['statement']}"


# --- the labels are neither perfect nor given away --------------------------------------------------------------------


def oriented(pairs: Dataset, column: str) -> np.ndarray:
    """Value for response 2 minus value for response 1, turned towards the preferred one."""
    values = [
        two["helpfulness"] - one["helpfulness"]
        for one, two in zip(pairs[f"{column}_1"], pairs[f"{column}_2"], strict=True)
    ]
    return np.array(values) * np.sign(pairs["preference"][:])


def test_the_oracle_beats_a_bag_of_words_with_separate_intervals(pairs: Dataset) -> None:
    decided = pairs.filter(bool, input_columns="preference")
    train, test = (
        decided.filter(lambda s, split=split: s == split, input_columns="split") for split in ("train", "validation")
    )
    view = preference_view(test)
    bag = BagOfWords.fit(preference_view(train))
    rewards = [bag.score(view["prompt"], [m[0]["content"] for m in view[side]]) for side in ("chosen", "rejected")]
    bow = wilson_interval(int((rewards[0] > rewards[1]).sum()), len(view))
    oracle = wilson_interval(int((oriented(test, "truth") > 0).sum()), len(test))
    assert 0.55 < bow.estimate < 0.70 < 0.85 < oracle.estimate < 0.95
    assert bow.high + 0.15 < oracle.low


def test_no_word_decides(pairs: Dataset) -> None:
    """Of the pairs in which one response alone has a word, that response wins between 15 and 85 percent."""
    wins, total = Counter[str](), Counter[str]()
    for one, two, preference in zip(pairs["response_1"], pairs["response_2"], pairs["preference"], strict=True):
        chosen, rejected = (set(spoken(text)) for text in ((one, two) if (preference or 0) < 0 else (two, one)))
        if preference:
            wins.update(chosen - rejected)
            total.update(chosen ^ rejected)
    frequent = {word: wins[word] / n for word, n in total.items() if n >= 50}
    assert len(frequent) > 100
    assert {word: round(share, 2) for word, share in frequent.items() if not 0.15 < share < 0.85} == {}


def test_simulated_statistics_are_near_the_published_ones(comparison: pd.DataFrame) -> None:
    near = {
        "share of ties among kept preferences": 0.05,
        "share of pairs without a preference": 0.05,
        "r of preference and helpfulness difference": 0.05,
        "kappa of preferences, processed": 0.05,
        "kappa of helpfulness, processed": 0.08,
        "annotators per pair": 0.3,
        "share of prompts with several turns": 0.03,
        **{f"{name}: mean": 0.35 for name in ATTRIBUTES},
        **{f"{name}: sd": 0.35 for name in ATTRIBUTES},
    }
    gaps = (comparison["simulated"] - comparison["published"]).abs()
    assert {name: gaps[name] for name, tolerance in near.items() if not gaps[name] < tolerance} == {}


# --- benchmark --------------------------------------------------------------------------------------------------------


def test_the_benchmark_has_every_official_subset_in_the_official_columns() -> None:
    items = list(simulated.benchmark_items(5))
    assert Counter(item["subset"] for item in items) == dict.fromkeys(SUBSETS, 5)
    columns = {"prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset", "id"}
    assert all(item.keys() == columns and isinstance(item["prompt"], str) for item in items)
    assert [item["id"] for item in items] == list(range(len(items)))


def test_chosen_responses_refuse_where_they_should_and_only_there() -> None:
    refusing = ("refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "donotanswer")
    for item in simulated.benchmark_items(20):
        refused = [
            re.search(r"\b(cannot|will not|must not|not something|nothing) ", item[side])
            for side in ("chosen", "rejected")
        ]
        if SUBSETS[item["subset"]].section == "Safety":
            assert [match is not None for match in refused] == [
                item["subset"] in refusing,
                item["subset"] not in refusing,
            ]
        else:
            assert not any(refused)


def test_chosen_responses_to_lists_are_right_and_their_rivals_worse() -> None:
    items = [item | {"prompt": [{"content": item["prompt"]}]} for item in simulated.benchmark_items(40, seed=5)]
    read = [(item, answer) for item, answer in lists_of(items) if item["rejected_model"] != "simulated-faultless"]
    assert len(read) > 200
    for item, answer in read:
        named = [{word for word in spoken(item[side]) if word in words.KIND_OF} for side in ("chosen", "rejected")]
        assert named[0] == answer != named[1]


def test_rejected_responses_of_the_adversarial_subsets_are_longer() -> None:
    for subset in ("llmbar-adver-neighbor", "llmbar-adver-GPTInst", "llmbar-adver-GPTOut", "llmbar-adver-manual"):
        items = [item for item in simulated.benchmark_items(20) if item["subset"] == subset]
        assert np.mean([len(item["rejected"]) - len(item["chosen"]) for item in items]) > 0


# --- tokenizer and config ---------------------------------------------------------------------------------------------


@given(text=st.text())
def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_words_of_the_simulated_world_are_single_tokens(tokenizer: PreTrainedTokenizerBase, pairs: Dataset) -> None:
    texts = pairs["response_1"][:1_000]
    n_words = sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)
    n_tokens = sum(len(ids) for ids in tokenizer(texts)["input_ids"])
    assert n_tokens < 1.02 * n_words
    assert all(len(tokenizer(f" {word}")["input_ids"]) == 1 for word in words.CONTENT)


def test_the_template_ends_every_message_with_one_end_token_and_knows_no_date(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    messages = [{"role": role, "content": role[0]} for role in ("system", "user", "assistant", "user", "assistant")]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == "<|user|>s<|end|><|user|>u<|end|><|assistant|>a<|end|><|user|>u<|end|><|assistant|>a<|end|>"
    assert not re.search(r"date|time|now", tokenizer.chat_template)
    ids = tokenizer(text)["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == len(messages) and ids[-1] == tokenizer.eos_token_id


def test_the_special_tokens_are_distinct_and_nothing_else_is_added(tokenizer: PreTrainedTokenizerBase) -> None:
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.bos_token) == ("<|pad|>", "<|end|>", None)
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert set(tokenizer("a")) == {"input_ids", "attention_mask"}
    assert tokenizer.decode(tokenizer("a")["input_ids"]) == "a"


def test_the_config_builds_a_small_backbone_that_fits_its_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    config = AutoConfig.from_pretrained(FOLDER / "backbone")
    assert config.vocab_size >= len(tokenizer) and config.max_position_embeddings >= 2048
    assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert sum(weight.numel() for weight in AutoModel.from_config(config).parameters()) < 3_000_000
