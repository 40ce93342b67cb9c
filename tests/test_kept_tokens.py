"""Tokens that are remembered are those that would be made, of the same tokenizer and template alone."""

import pytest
import tiny

from rmlib import batches, kept_tokens

PROMPTS = [[{"role": "user", "content": text}] for text in ("2+2?", "3+3?")]
RESPONSES = ["four", "six"]


def test_the_second_model_of_a_backbone_finds_the_tokens_of_the_first() -> None:
    first = kept_tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    again = kept_tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    made = batches.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    assert again is first
    assert [row.tolist() for row in first.ids] == [row.tolist() for row in made.ids]


@pytest.mark.parametrize("other", [{"template": "{{ messages[-1]['content'] }}"}, {"bos": True}])
def test_another_template_or_tokenizer_makes_its_own_tokens(other: dict) -> None:
    kept_tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    tokenizer = tiny.byte_tokenizer(**other)
    found = kept_tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    made = batches.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    assert [row.tolist() for row in found.ids] == [row.tolist() for row in made.ids]


def test_a_template_that_is_changed_later_is_not_taken_for_the_earlier_one() -> None:
    tokenizer = tiny.byte_tokenizer()
    before = kept_tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    after = kept_tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    assert len(after.ids[0]) == len("four") < len(before.ids[0])


def test_tokens_of_a_table_too_large_for_memory_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tokens, "MOST_CHARACTERS", 3)
    first, again = (kept_tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES) for _ in range(2))
    assert again is not first and again.ids[0].tolist() == first.ids[0].tolist()
