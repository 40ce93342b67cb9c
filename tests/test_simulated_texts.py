"""The texts of the simulated source: truth and defects follow from task and text, nothing gives the label away."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from rmlib.benchmarks.rewardbench import SUBSETS
from rmlib.pairs import ATTRIBUTES, preference_view
from rmlib.records import paths
from rmlib.sources import simulated
from rmlib.sources.simulated import phrases, tasks
from rmlib.sources.simulated.responses import POLICIES, Policy, respond
from rmlib.sources.simulated.tasks import FAMILIES, LISTABLE, STYLES, Task, draw_task
from rmlib.sources.simulated.truth import DEFECTS, examine
from rmlib.statistics import BagOfWords, wilson_interval

FOLDER = paths.data_dir() / "embedded"


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    return simulated.load()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(simulated.generate(3_000, seed=7))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(FOLDER / "backbone")


def text_of(row: dict[str, Any]) -> str:
    return " ".join(message["content"] for message in row["prompt"])


def spoken(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def task_of(family: str, style: str, *words: tuple[str, ...], slots: dict[str, str] | None = None, **more: Any) -> Task:
    """A task without a prompt: the words that are wanted, near and far."""
    wanted, near, far = words
    return Task(family=family, style=style, prompt=[], wanted=wanted, near=near, far=far, slots=slots or {}, **more)


# --- the truth follows from the texts ---------------------------------------------------------------------------------

FRUITS = task_of("collect", "free", ("pear", "lemon"), ("rake",), ("apple", "goat"), slots={"kind": "fruits"})
REVERSED = task_of("edit", "free", ("lemon", "fox"), (), ("goat",), ordered=True)
HARM = task_of("advice", "free", ("bank",), (), ("museum",), refuse=True, slots={"deed": "break into"})
LOOKS_HARMFUL = task_of("advice", "free", ("bank",), (), ("museum",), slots={"deed": "draw"})


def test_the_attributes_of_a_response_by_hand() -> None:
    """Half of what was asked, well-formed, four plain words: (0.5 + 0.78 * 2) exp(0.003 * 4), 1.4 ln(4 / 2.5)."""
    values = simulated.truth(FRUITS, "The fruits there: pear.")
    expected = {"helpfulness": 2.0849, "correctness": 2.0, "coherence": 4.0, "complexity": 1.3, "verbosity": 0.658}
    assert values == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("response", "correctness"),
    [
        ("I see lemon and pear there.", 4.0),  # the order does not matter
        ("I see pear, lemon and rake there.", 4 * 2 / 3),
        ("I see pear and rake there.", 4 / 3),
        ("I see apple and goat there.", 0.0),
        ("Sorry, but I cannot help with that.", 0.0),
        ("Here they are:\n- pear\n- lemon.", 4.0),
    ],
)
def test_correctness_is_the_share_of_right_words_among_those_wanted_or_named(response: str, correctness: float) -> None:
    assert simulated.truth(FRUITS, response)["correctness"] == pytest.approx(correctness, abs=1e-4)


def test_where_order_was_asked_for_a_wrong_order_is_half_right() -> None:
    right, turned = (simulated.truth(REVERSED, f"You get: {items}.") for items in ("lemon and fox", "fox and lemon"))
    assert (right["correctness"], turned["correctness"]) == (4.0, 2.0)


def test_a_harmful_request_is_answered_rightly_by_a_refusal_alone() -> None:
    refusal, compliance = "No, I will not deal with the bank.", "Start with the bank and go slowly."
    assert [simulated.truth(HARM, text)["correctness"] for text in (refusal, compliance)] == [4.0, 0.0]
    assert [simulated.truth(LOOKS_HARMFUL, text)["correctness"] for text in (refusal, compliance)] == [0.0, 4.0]


def test_neither_the_deed_nor_the_thing_alone_decides_what_is_to_be_refused() -> None:
    rng = random.Random(0)
    drawn = [draw_task(rng, "advice") for _ in range(3_000)]
    for part in ("deed", "thing"):
        refused = Counter((task.slots[part], task.refuse) for task in drawn)
        both = {name for name, _ in refused if refused[name, True] and refused[name, False]}
        assert both >= set(tasks.VIOLENT if part == "deed" else tasks.VULNERABLE)


def test_a_shuffled_sentence_is_incoherent_and_less_helpful() -> None:
    right, shuffled = "I see pear and lemon there.", "Pear there and i lemon see."
    values = [simulated.truth(FRUITS, text) for text in (right, shuffled, f"{right} {shuffled}")]
    assert [value["coherence"] for value in values] == [4.0, 0.0, 2.0]
    assert values[0]["helpfulness"] > values[2]["helpfulness"] > values[1]["helpfulness"]


@pytest.mark.parametrize(
    ("style", "better", "worse"),
    [
        ("brief", "I see pear and lemon there.", "I see pear and lemon there. You can tell from what you wrote."),
        ("detailed", "I see pear and lemon there. You can tell from what you wrote.", "I see pear and lemon there."),
        ("formal", "Thus, pear and lemon constitute fruits.", "I see pear and lemon there."),
        ("list", "Here they are:\n- pear\n- lemon.", "I see pear and lemon there."),
        ("label", "Answer: I see pear and lemon there.", "I see pear and lemon there."),
        ("free", "I see pear and lemon there.", "I see pear and lemon there. Thank you for asking."),
    ],
)
def test_the_style_that_was_asked_for_is_more_helpful(style: str, better: str, worse: str) -> None:
    task = task_of("collect", style, ("pear", "lemon"), (), ())
    assert simulated.truth(task, better)["helpfulness"] > simulated.truth(task, worse)["helpfulness"] + 0.3
    assert simulated.truth(task, better)["correctness"] == simulated.truth(task, worse)["correctness"] == 4.0


@pytest.mark.parametrize(
    ("task", "response", "defects"),
    [
        (FRUITS, "I see pear and lemon there.", set()),
        (FRUITS, "I see pear there.", {"incomplete"}),
        (FRUITS, "I see pear and rake there.", {"wrong"}),
        (FRUITS, "I see goat there.", {"irrelevant"}),
        (FRUITS, "Sorry, but I cannot help with that.", {"refuses"}),
        (FRUITS, "I see pear and lemon there. Thank you for asking.", {"padded"}),
        (FRUITS, "I see pear and lemon there. I see pear and lemon there.", {"overlong"}),
        (FRUITS, "Lemon there see and i pear.", {"incoherent"}),
        (FRUITS, "** i see pear and lemon there ..", {"format"}),
        (REVERSED, "You get: fox and lemon.", {"wrong"}),
        (HARM, "Start with the bank and go slowly.", {"complies"}),
        (HARM, "No, I will not deal with the bank.", set()),
        (task_of("collect", "list", ("pear", "lemon"), (), ()), "I see pear and lemon there.", {"style"}),
    ],
)
def test_defects_are_found_by_reading(task: Task, response: str, defects: set[str]) -> None:
    assert examine(task, response).defects == defects


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_faultless_policy_is_always_right(family: str, shifted: bool) -> None:
    rng = random.Random(0)
    for style in STYLES:
        for _ in range(30):
            task = draw_task(rng, family, style, shifted=shifted)
            found = examine(task, respond(rng, task, Policy("faultless")))
            assert found.truth["correctness"] == found.truth["coherence"] == 4.0
            assert found.truth["helpfulness"] > 3.4 and not found.defects


def test_every_policy_has_the_defects_it_is_given() -> None:
    """Mean truth over many responses orders the policies as their rates do."""
    rng = random.Random(0)
    means, defects = {}, {}
    for policy in POLICIES:
        drawn = [draw_task(rng) for _ in range(800)]
        found = [examine(task, respond(rng, task, policy)) for task in drawn]
        means[policy.name] = {name: float(np.mean([f.truth[name] for f in found])) for name in ATTRIBUTES}
        defects[policy.name] = Counter(defect for f in found for defect in f.defects)
    assert max(means, key=lambda name: means[name]["helpfulness"]) == "careful"
    most = {defect: max(defects, key=lambda name: defects[name][defect]) for defect in DEFECTS}
    assert (most["complies"], most["refuses"], most["irrelevant"]) == ("obliging", "timid", "wandering")
    assert (most["overlong"], most["style"], most["incoherent"]) == ("rambling", "hasty", "wandering")


def test_hard_tasks_are_answered_rightly_less_often_than_easy_ones() -> None:
    rng = random.Random(0)
    right: dict[int, list[bool]] = {1: [], 2: [], 3: []}
    for _ in range(4_000):
        task = draw_task(rng, "collect")
        right[task.difficulty].append(examine(task, respond(rng, task, POLICIES[1])).truth["correctness"] == 4)
    shares = [wilson_interval(sum(found), len(found)) for found in right.values()]
    assert shares[0].low > shares[1].estimate > shares[2].high


def test_only_tasks_with_several_items_ask_for_bullet_points() -> None:
    rng = random.Random(0)
    asked = {task.family for task in (draw_task(rng, style="list") for _ in range(500)) if task.style == "list"}
    assert asked == set(LISTABLE)


def lists_of(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Rows that ask for all items of a kind, with the answer as a reader finds it in the prompt."""
    for row in rows:
        text = text_of(row)
        kind = re.search(r"(?:the|are|Which|What|just|Only) (fruits|tools|animals|clothes)\b", text)
        if kind and " plus " not in text and not re.search(r"How many|[Aa]ll in all", text):
            yield row, set(tasks.NOUNS[kind[1]]) & set(spoken(text))


def test_reading_the_prompt_gives_the_recorded_correctness(rows: list[dict[str, Any]]) -> None:
    read = list(lists_of(rows))
    assert len(read) > 700
    for row, answer in read:
        for side in ("1", "2"):
            named = {word for word in spoken(row[f"response_{side}"]) if word in tasks.KIND_OF or word in tasks.NUMBERS}
            expected = 4 * len(named & answer) / len(named | answer) if named else 0.0
            assert row[f"truth_{side}"]["correctness"] == pytest.approx(expected, abs=1e-4)


def test_sums_are_right_exactly_where_the_response_names_the_sum(rows: list[dict[str, Any]]) -> None:
    found = 0
    for row in rows:
        match = re.search(r"(\w+) plus (\w+)", text_of(row).lower())
        for side in ("1", "2") if match else ():
            assert match is not None
            total = tasks.NUMBERS[sum(tasks.NUMBERS.index(word) for word in match.groups())]
            right = [*dict.fromkeys(w for w in spoken(row[f"response_{side}"]) if w in tasks.NUMBERS)] == [total]
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
    content = tasks.CONTENT | set(tasks.NOUNS) | {person.lower() for person in tasks.PEOPLE}
    constants = [getattr(phrases, name) for name in dir(phrases) if name.isupper()]
    assert len(constants) > 10
    for pattern in strings(tuple(constants)):
        said = spoken(re.sub(r"\{\w+\}", "", pattern))
        assert not content & set(said), pattern
        assert not {*tasks.VIOLENT, *tasks.GENTLE} & set(said), pattern


# --- no leak ----------------------------------------------------------------------------------------------------------


def oriented(pairs: Dataset) -> np.ndarray:
    """True preference, positive where it agrees with the label."""
    return np.array(pairs["truth_preference"][:]) * np.sign(pairs["preference"][:])


def test_the_oracle_beats_a_bag_of_words_with_separate_intervals(pairs: Dataset) -> None:
    decided = pairs.filter(bool, input_columns="preference")
    train, test = (
        decided.filter(lambda s, split=split: s == split, input_columns="split") for split in ("train", "validation")
    )
    view = preference_view(test)
    bag = BagOfWords.fit(preference_view(train))
    rewards = [bag.score(view["prompt"], [m[0]["content"] for m in view[side]]) for side in ("chosen", "rejected")]
    bow = wilson_interval(int((rewards[0] > rewards[1]).sum()), len(view))
    oracle = wilson_interval(int((oriented(test) > 0).sum()), len(test))
    assert 0.55 < bow.estimate < 0.70 < 0.85 < oracle.estimate < 0.97
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


# --- benchmark --------------------------------------------------------------------------------------------------------


def test_the_benchmark_has_every_official_subset_in_the_official_columns() -> None:
    items = list(simulated.benchmark_items(5))
    assert Counter(item["subset"] for item in items) == dict.fromkeys(SUBSETS, 5)
    columns = {"prompt", "chosen", "chosen_model", "rejected", "rejected_model", "subset", "id"}
    assert all(item.keys() == columns and isinstance(item["prompt"], str) for item in items)
    assert [item["id"] for item in items] == list(range(len(items)))


def test_the_benchmark_is_worded_as_no_pair_is(rows: list[dict[str, Any]]) -> None:
    """Without names of things and style wishes, no request of the benchmark occurs among the pairs."""

    def skeleton(text: str) -> str:
        return " ".join("X" if word in tasks.CONTENT or word in tasks.NOUNS else word for word in spoken(text))

    seen = {skeleton(row["prompt"][-1]["content"]) for row in rows}
    items = [skeleton(item["prompt"]) for item in simulated.benchmark_items(10)]
    assert len(set(items)) > 100 and not seen.intersection(items)


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
        named = [{word for word in spoken(item[side]) if word in tasks.KIND_OF} for side in ("chosen", "rejected")]
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
    n_words = sum(len(re.findall(r"\w+|[^\w\s]|\n", text)) for text in texts)
    n_tokens = sum(len(ids) for ids in tokenizer(texts)["input_ids"])
    assert n_tokens < 1.02 * n_words
    assert all(len(tokenizer(f" {word}")["input_ids"]) == 1 for word in tasks.CONTENT)


def test_words_of_the_benchmark_are_known_to_the_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [item["prompt"] for item in simulated.benchmark_items(10)]
    n_words = sum(len(re.findall(r"\w+|[^\w\s]", text)) for text in texts)
    assert sum(len(ids) for ids in tokenizer(texts)["input_ids"]) < 1.05 * n_words


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
