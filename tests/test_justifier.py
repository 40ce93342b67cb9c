"""The justifier's prompt, target and parser, and a judge whose words can be read off."""

from collections.abc import Sequence

import pytest
from datasets import Dataset

from rmlib import justifier
from rmlib.alignment.policies import Samples
from rmlib.benchmarks.judges import Judge
from rmlib.justifier import Justifier, examples, instruction, stated_verdict, target, verdict_of
from rmlib.pairs import make_pairs

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
    assert found.rows["completion"][:] == [[{"role": "assistant", "content": f"It is one. {better_1}"}]]
    assert found.left_out == {justifier.AGAINST: 1, justifier.NO_TEXT: 1, justifier.NO_STATEMENT: 1}


def test_annotations_of_a_tie_are_no_examples() -> None:
    found = examples(one_pair(0, annotation(-1, "@Response 1 is slightly better than @Response 2.")))
    assert len(found.rows) == 0 and found.left_out == {justifier.UNDECIDED: 1}


class Says:
    """A policy that always says the same."""

    name = "parrot"

    def __init__(self, text: str) -> None:
        self.text = text

    def sample(self, prompts: Sequence[object], n: int, **_: object) -> Samples:
        return Samples(list(prompts), n, [], [], [self.text] * len(prompts), None)  # type: ignore[arg-type]


def test_a_justifier_is_a_judge_of_pairs_alone() -> None:
    judge: Judge = Justifier(Says("@Response 2 is better than @Response 1."))  # type: ignore[arg-type]
    assert judge.compare(PROMPT, ["Apple.", "Stone."]).value == 1.0
    with pytest.raises(ValueError, match="two responses, not 3"):
        judge.compare(PROMPT, ["a", "b", "c"])
    with pytest.raises(ValueError, match="rates none"):
        judge.rate(PROMPT, "a")
