"""Tokens that are remembered are those that would be made, of the same tokenizer and template alone."""

import pytest
import tiny

from rmlib.models import batches, tokens

PROMPTS = [[{"role": "user", "content": text}] for text in ("2+2?", "3+3?")]
RESPONSES = ["four", "six"]


def test_the_second_model_of_a_backbone_finds_the_tokens_of_the_first() -> None:
    first = tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    again = tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    made = batches.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    assert all(row is other for row, other in zip(again.ids, first.ids, strict=True))
    assert [row.tolist() for row in first.ids] == [row.tolist() for row in made.ids]


@pytest.mark.parametrize("other", [{"template": "{{ messages[-1]['content'] }}"}, {"bos": True}])
def test_another_template_or_tokenizer_makes_its_own_tokens(other: dict) -> None:
    tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    tokenizer = tiny.byte_tokenizer(**other)
    found = tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    made = batches.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    assert [row.tolist() for row in found.ids] == [row.tolist() for row in made.ids]


def test_a_template_that_is_changed_later_is_not_taken_for_the_earlier_one() -> None:
    tokenizer = tiny.byte_tokenizer()
    before = tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    after = tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    assert len(after.ids[0]) == len("four") < len(before.ids[0])


def test_texts_are_found_again_in_any_order_and_as_often_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, asked = tiny.byte_tokenizer(), []
    first = tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    honest = batches.encode_decoder
    monkeypatch.setattr(batches, "encode_decoder", lambda *texts: asked.append(texts[2]) or honest(*texts))
    prompts, responses = [PROMPTS[1], PROMPTS[0], PROMPTS[1], PROMPTS[0]], ["six", "five", "six", "five"]
    found = tokens.encode_decoder(tokenizer, prompts, responses)
    assert found.ids[0] is found.ids[2] is first.ids[1]
    assert [list(some) for some in asked] == [["five"]]  # new, and made once
    made = honest(tokenizer, prompts, responses)
    assert [row.tolist() for row in found.ids] == [row.tolist() for row in made.ids]


def test_what_would_take_too_much_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_TOKENS", 3)
    first, again = (tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES) for _ in range(2))
    assert again.ids[0] is not first.ids[0] and again.ids[0].tolist() == first.ids[0].tolist()
    assert not tokens._KEPT


def test_a_response_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="2 prompts for 3 responses"):
        tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, [*RESPONSES, "seven"])
