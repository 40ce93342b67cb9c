"""The justifier's prompt, target and parser, and a judge whose words can be read off."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset

from rmlib.alignment import justifier
from rmlib.alignment.justifier import Justifier, examples, instruction, stated_verdict, target, verdict_of
from rmlib.alignment.policies import Samples
from rmlib.benchmarks import own
from rmlib.benchmarks.judges import Judge
from rmlib.benchmarks.judging import Question
from rmlib.figures import justifier as justifier_figures
from rmlib.pairs import make_pairs
from rmlib.pairs.schema import ATTRIBUTES
from rmlib.sources import SourceInfo
from rmlib.statistics import Longer

PROMPT = [{"role": "user", "content": "Name a fruit."}]


def test_the_prompt_is_the_conversation_the_responses_and_the_question() -> None:
    (turn,) = instruction(PROMPT, "Apple.", "Stone.")
    assert turn == {
        "role": "user",
        "content": "Name a fruit.\n\n@Response 1:\nApple.\n\n@Response 2:\nStone.\n\n"
        "Between @Response 1 and @Response 2, which is better?",
    }


def test_a_conversation_of_several_turns_names_its_speakers() -> None:
    turns = [*PROMPT, {"role": "assistant", "content": "Pear."}, {"role": "user", "content": "Another."}]
    text = instruction(turns, "Apple.", "Stone.")[0]["content"]
    places = [text.index(part) for part in ("[user]\nName", "[assistant]\nPear", "[user]\nAnother", "@Response 1")]
    assert places == sorted(places)


def test_the_reasons_come_before_the_verdict() -> None:
    assert target("It is a fruit. ", "@Response 1 is better than @Response 2.") == (
        "It is a fruit. @Response 1 is better than @Response 2."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A fruit. @Response 1 is much better than @Response 2.", -3),
        ("@Response 1 is better than @Response 2. No: @Response 2 is slightly better than @Response 1.", 1),
        ("@Response 1 is about the same as @Response 2.", 0),
        ("@Response 1 is a fruit.", None),
        ("", None),
    ],
)
def test_the_last_statement_is_the_verdict(text: str, expected: int | None) -> None:
    assert stated_verdict(text) == expected


def test_a_verdict_is_an_index_a_tie_or_unparsable() -> None:
    assert verdict_of("@Response 2 is better than @Response 1.").value == 1.0
    assert verdict_of("@Response 1 is better than @Response 2.").value == 0.0
    assert verdict_of("@Response 1 is about the same as @Response 2.").problem == "tie"
    assert verdict_of("I cannot say.").problem == "unparsable"


def annotation(preference: int, statement: str | None, elaboration: str | None = "It is one.") -> dict[str, object]:
    return {"annotator": None, "preference": preference, "statement": statement, "elaboration": elaboration}


def one_pair(preference: int | None, *annotations: dict[str, object]) -> Dataset:
    row = {"split": "train", "prompt": PROMPT, "response_1": "Apple.", "response_2": "Stone.", "preference": preference}
    return make_pairs([row | {"annotations": list(annotations)}], origin="test")


def test_an_example_is_an_annotation_that_agrees_with_its_pair_and_the_rest_is_counted() -> None:
    better_1, better_2 = "@Response 1 is better than @Response 2.", "@Response 2 is better than @Response 1."
    found = examples(
        one_pair(
            -2, annotation(-2, better_1), annotation(2, better_2), annotation(-2, None), annotation(-2, "A fruit.")
        )
    )
    texts = [completion[0]["content"] for completion in found.rows["completion"][:]]
    assert texts == [f"It is one. {better_1}", f"It is one. {better_2}"]
    assert found.left_out == {justifier.AGAINST: 1, justifier.NO_TEXT: 1, justifier.NO_STATEMENT: 1}


def test_annotations_of_a_tie_are_no_examples() -> None:
    found = examples(one_pair(0, annotation(-1, "@Response 1 is slightly better than @Response 2.")))
    assert len(found.rows) == 0 and found.left_out == {justifier.UNDECIDED: 1}


def test_an_example_in_the_other_order_exchanges_responses_and_names() -> None:
    said = annotation(-2, "@Response 1 is better than @Response 2.", "Response 1 is a fruit, @Response 2 is none.")
    found = examples(one_pair(-2, said))
    orders = [("Apple.", "Stone."), ("Stone.", "Apple.")]
    assert found.rows["prompt"][:] == [instruction(PROMPT, *order) for order in orders]
    texts = [completion[0]["content"] for completion in found.rows["completion"][:]]
    assert texts[1] == "Response 2 is a fruit, @Response 1 is none. @Response 2 is better than @Response 1."
    assert [stated_verdict(text) for text in texts] == [-2, 2]


@pytest.mark.parametrize("words", ["The first one is a fruit.", "A2 is hard.", "the second answer is hard"])
def test_what_names_responses_in_other_words_is_not_exchanged_but_counted(words: str) -> None:
    said = annotation(-2, "@Response 1 is better than @Response 2.", words)
    found = examples(one_pair(-2, said))
    assert len(found.rows) == 1 and found.left_out == {justifier.ONE_ORDER: 1}
    alone = examples(one_pair(-2, said), with_reasons=False)  # the statement can be exchanged
    assert len(alone.rows) == 2 and alone.left_out == {}


class Says:
    """A policy that prefers the response with an "e" in it, or says nothing where it cannot find it."""

    name, network = "parrot", torch.nn.Linear(1, 1)

    def __init__(self) -> None:
        self.tokenizer, self.batches = tiny.byte_tokenizer(), []

    def sample(self, prompts: Sequence[list[dict[str, str]]], n: int, **_: object) -> Samples:
        self.batches.append(len(prompts))
        texts = [self.reply(prompt[0]["content"]) for prompt in prompts]
        return Samples(list(prompts), n, [], [], texts, np.ones(len(texts), dtype=bool))

    def reply(self, question: str) -> str:
        first, second = (question.split(f"@Response {number}:\n")[1].splitlines()[0] for number in (1, 2))
        if ("e" in first) == ("e" in second):
            return "I cannot say."
        return f"@Response {1 if 'e' in first else 2} is better than @Response {2 if 'e' in first else 1}."


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))


def judge_of(policy: Says, **options: int) -> Justifier:
    return Justifier(policy, **options)  # type: ignore[arg-type]


def test_a_justifier_is_a_judge_of_pairs_alone() -> None:
    judge: Judge = judge_of(Says())
    assert judge.compare(PROMPT, ["Rock.", "Apple."]).value == 1.0
    with pytest.raises(ValueError, match="two responses, not 3"):
        judge.compare(PROMPT, ["a", "b", "c"])
    with pytest.raises(ValueError, match="rates none"):
        judge.rate(PROMPT, "a")


def test_a_justifier_writes_in_batches_and_each_text_once() -> None:
    policy = Says()
    questions = [Question(PROMPT, ("Apple.", f"Rock {number}.")) for number in range(5)]
    written = judge_of(policy, batch_size=2).write([*questions, questions[0]])
    assert policy.batches == [2, 2, 1] and len(set(written)) == 1
    again = judge_of(Says(), batch_size=2)
    again.policy.network.load_state_dict(policy.network.state_dict())
    assert again.write(questions) == written[:5]
    assert policy.batches == [2, 2, 1], "the same weights: read from disk"


def test_what_a_record_says_of_a_judge_can_be_counted_by_hand(tmp_path: Path) -> None:
    texts = [("Apple.", "Rock."), ("Rock.", "Apple."), ("Stone.", "Date.")]
    rows = [
        {"prompt": [{"role": "user", "content": f"{number}?"}], "response_1": one, "response_2": two}
        | {"split": "validation", "preference": -number, "annotations": []}
        for number, (one, two) in enumerate(texts, start=1)
    ]
    items = own.of_pairs(make_pairs(rows, origin="test"), "by hand")  # response 1 is always the preferred one
    outcome = justifier.judged(judge_of(Says()), items, progress=False)
    assert (outcome["first"], outcome["second"]) == ([0, 1, None], [0, 1, None])  # Apple right, Apple wrong, both an e
    assert outcome["problems"] == {"unparsable": 2} and outcome["strength"] == [1, 2, 3]
    assert outcome["words"] == pytest.approx((4 * 7 + 2 * 3) / 6)  # "@Response 1 is better than @Response 2.": 7 words

    file, about = tmp_path / "records.jsonl", SourceInfo("test", "test pairs", "annotated", "0")
    justifier.record(file, "parrot", outcome, items=items, source=about, about={"kind": "double"})
    leans = {"first": [0, 0, 0], "second": [1, 1, 0], "problems": {}, "strength": [1, 2, 3]}
    justifier.record(file, "leans", leans, items=items, source=about, about={"kind": "double"})
    table = justifier_figures.summary(file)
    assert table["agreement"].to_list() == [pytest.approx((1 + 0 + 0.5) / 3), pytest.approx((0.5 + 0.5 + 1) / 3)]
    assert table["consistent"].to_list() == [1.0, pytest.approx(1 / 3)]  # the parrot's third pair is not decided
    assert table["shown_first"].to_list() == [0.5, pytest.approx(5 / 6)]
    assert table["unparsable"].to_list() == [pytest.approx(2 / 6), 0.0]
    shares = justifier_figures.outcome_shares(file)
    assert shares.loc["parrot"].to_list() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    assert shares.loc["leans"].to_list() == pytest.approx([1 / 3, 2 / 3, 0, 0])
    (difference,) = justifier_figures.differences(file, [("leans", "parrot")]).to_dict("records")
    assert difference["estimate"] == pytest.approx(2 / 3 - 1 / 2) and difference["n"] == 3


def test_a_scorer_wins_or_ties_alike_in_both_orders() -> None:
    shared = {"split": "validation", "prompt": PROMPT, "response_1": "two", "preference": -1, "annotations": []}
    rows = [shared | {"response_2": word} for word in ("a", "six", "three")]
    outcome = justifier.by_reward(Longer(), own.of_pairs(make_pairs(rows, origin="test"), "by hand"))
    assert outcome["first"] == outcome["second"] == [0, None, 1] and outcome["problems"] == {"tie": 2}


def test_what_is_said_of_simulated_responses_is_held_against_the_truth() -> None:
    praise = "@Response 1 is more accurate. @Response 2 gives more detail. @Response 2 is clearer and easier to follow."
    texts = [f"{praise} @Response 1 is better than @Response 2.", "@Response 1 shows more expertise.", "Both are fine."]
    equal = dict.fromkeys(ATTRIBUTES, 2.0)
    better = equal | {"correctness": 3.0, "coherence": 3.0}
    found = justifier.claims(texts, [(better, equal)] * 3)
    # accurate: true, as the verdict; detail: equal; clearer: false; expertise: equal, without a verdict
    assert found == {"claims": 4, "true": 1, "equal": 2, "decided": 3, "with verdict": 1}
