"""Tokens of a conversation by its template, and that those remembered are those that would be made."""

from datetime import datetime

import pytest
import tiny

from rmlib.models import templates, tokens

USER = [{"role": "user", "content": "2+2?"}]
TURNS = [*USER, {"role": "assistant", "content": "4"}, {"role": "user", "content": "sure?"}]
PROMPTS = [[{"role": "user", "content": text}] for text in ("2+2?", "3+3?")]
RESPONSES = ["four", "six"]


def test_a_conversation_is_the_template_s_text_with_the_response_and_its_end_token_last() -> None:
    tokenizer = tiny.byte_tokenizer()
    encoded = tokens.encode_decoder(tokenizer, [TURNS], ["yes"])
    text = "<|user|>2+2?<|end|><|assistant|>4<|end|><|user|>sure?<|end|><|assistant|>yes<|end|>"
    assert tokenizer.decode(encoded.ids[0]) == text
    assert encoded.ids[0][-1] == tokenizer.eos_token_id and not encoded.cut.any()


@pytest.mark.parametrize("template", [tiny.TEMPLATE, "{{ bos_token }}" + tiny.TEMPLATE])
def test_there_is_one_bos_whether_or_not_the_template_writes_it(template: str) -> None:
    tokenizer = tiny.byte_tokenizer(template=template, bos=True)
    ids = tokens.encode_decoder(tokenizer, [USER], ["four"]).ids[0]
    assert ids[0] == tokenizer.bos_token_id and (ids == tokenizer.bos_token_id).sum() == 1


def test_a_tokenizer_without_bos_gets_none() -> None:
    tokenizer = tiny.byte_tokenizer()
    assert tokens.encode_decoder(tokenizer, [USER], ["four"]).ids[0][0] == tokenizer.convert_tokens_to_ids("<|user|>")


@pytest.mark.parametrize(
    "clock",
    ["{{ strftime_now('%d %b %Y') }}", "{% if date_string is defined %}{{ date_string }}{% endif %}"],
)
def test_no_template_can_write_today_s_date(clock: str) -> None:
    text = templates.render(tiny.byte_tokenizer(template=clock + tiny.TEMPLATE), USER, "four")
    assert text.startswith("26 Jul 2024") and datetime.now().strftime("%d %b %Y") not in text


def test_an_encoder_s_prompt_loses_its_beginning_before_the_response_loses_its_end() -> None:
    tokenizer = tiny.byte_tokenizer()
    fits, prompt_cut, both_cut = tokens.encode_encoder(
        tokenizer,
        [[{"role": "user", "content": "abcdef"}]] * 3,
        ["xy", "uvwxyz", "0123456789"],
        8,
    ).ids
    assert [tokenizer.decode(ids) for ids in (fits, prompt_cut, both_cut)] == ["abcdefxy", "efuvwxyz", "01234567"]


def test_cut_texts_are_marked() -> None:
    encoded = tokens.encode_encoder(tiny.byte_tokenizer(), [USER, USER], ["1234", "12345"], 8)
    assert encoded.cut.tolist() == [False, True]


# --- what is remembered -----------------------------------------------------------------------------------------------


def made_anew(tokenizer, prompts: list, responses: list[str]) -> list[list[int]]:
    """Tokens that nobody remembers."""
    texts = [templates.render(tokenizer, *text) for text in zip(prompts, responses, strict=True)]
    return [row.tolist() for row in tokens.tokens_of(tokenizer, texts)]


def test_the_second_model_of_a_backbone_finds_the_tokens_of_the_first() -> None:
    first = tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    again = tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    assert all(row is other for row, other in zip(again.ids, first.ids, strict=True))
    assert [row.tolist() for row in first.ids] == made_anew(tiny.byte_tokenizer(), PROMPTS, RESPONSES)


@pytest.mark.parametrize("other", [{"template": "{{ messages[-1]['content'] }}"}, {"bos": True}])
def test_another_template_or_tokenizer_makes_its_own_tokens(other: dict) -> None:
    tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES)
    tokenizer = tiny.byte_tokenizer(**other)
    found = tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    assert [row.tolist() for row in found.ids] == made_anew(tokenizer, PROMPTS, RESPONSES)


def test_a_template_that_is_changed_later_is_not_taken_for_the_earlier_one() -> None:
    tokenizer = tiny.byte_tokenizer()
    before = tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    after = tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    assert len(after.ids[0]) == len("four") < len(before.ids[0])


def test_texts_are_found_again_in_any_order_and_as_often_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, asked = tiny.byte_tokenizer(), []
    first = tokens.encode_decoder(tokenizer, PROMPTS, RESPONSES)
    honest = tokens.tokens_of
    monkeypatch.setattr(tokens, "tokens_of", lambda *given: asked.append(given[1]) or honest(*given))
    prompts, responses = [PROMPTS[1], PROMPTS[0], PROMPTS[1], PROMPTS[0]], ["six", "five", "six", "five"]
    found = tokens.encode_decoder(tokenizer, prompts, responses)
    assert found.ids[0] is found.ids[2] is first.ids[1]
    assert asked == [[templates.render(tokenizer, PROMPTS[0], "five")]]  # new, and made once
    assert [row.tolist() for row in found.ids] == made_anew(tokenizer, prompts, responses)


def test_what_would_take_too_much_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_TOKENS", 3)
    first, again = (tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, RESPONSES) for _ in range(2))
    assert again.ids[0] is not first.ids[0] and again.ids[0].tolist() == first.ids[0].tolist()
    assert not tokens._KEPT


def test_a_response_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="2 prompts for 3 responses"):
        tokens.encode_decoder(tiny.byte_tokenizer(), PROMPTS, [*RESPONSES, "seven"])
