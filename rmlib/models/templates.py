"""Conversations as a chat template writes them: what it is told, what it refuses, and what it leaves out."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from rmlib.models.interface import ConversationError, ModelError, Prompt
from rmlib.pairs.messages import Response, as_message, with_own_keys

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n\n{% endfor %}{{ eos_token or '' }}"
)
# What Llama 3.1's template prints when it has no clock. Any fixed date would do: with today's, rewards drift daily.
TEMPLATE_DATE = "26 Jul 2024"
STOPPED_CLOCK = "{%- macro strftime_now(format) -%}" + TEMPLATE_DATE + "{%- endmacro %}"
SPECIAL_TOKENS = ("text", "special")
# All that decides how a conversation is read stands in the template, so that what has its hash has that, too.
_KEEP_MEANING = "{#- special tokens within a text keep their meaning -#}"
_NOT_TO_BE_SET = {"messages", "add_generation_prompt", "continue_final_message"}
REFUSALS = (TemplateError, TypeError, ValueError, AttributeError, LookupError)  # of what a template meets unprepared
_PROBE = ({"role": "user", "content": "?"},)


def checked_chat(chat: Any) -> Mapping[str, Any]:
    """What says how conversations are written, if it has no keys but those of `adjust`; else ModelError."""
    known = ("chat_template", "chat_template_kwargs", "system_message", "special_tokens")
    if not isinstance(chat, Mapping) or not chat.keys() <= set(known):
        raise ModelError(f"chat={chat!r} does not say how conversations are written; give some of {', '.join(known)}")
    return chat


def adjust(
    tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None, system_message: str | None = None,
    special_tokens: str = "text",
) -> None:  # fmt: skip
    """Write what was asked for into the tokenizer's chat template, which is saved, hashed and exported with it.

    `chat_template` replaces its own; `chat_template_kwargs` are what it is to be called with, such as
    {"enable_thinking": False}; `system_message` begins every conversation that has none ("": an empty one, where the
    template would write one of its own). Special tokens within a text are "text", or are "special" and keep their
    meaning. Raises ModelError for what the template does not read, or refuses.
    """
    if special_tokens not in SPECIAL_TOKENS:
        raise ModelError(f"special_tokens={special_tokens!r} is unknown; known: {', '.join(SPECIAL_TOKENS)}")
    if chat_template is None and tokenizer.chat_template is None:
        raise ModelError("the tokenizer has no chat template that could be told anything; give a chat_template")
    if isinstance(chat_template, Path) or ("{" not in (chat_template or "{") and Path(chat_template or "").suffix):
        text = f"Path({str(chat_template)!r}).read_text()"
        raise ModelError(f"chat_template={str(chat_template)!r} looks like a path; give the template's text: {text}")
    template = tokenizer.get_chat_template() if chat_template is None else chat_template
    before = ""
    for name, value in (chat_template_kwargs or {}).items():
        if name in _NOT_TO_BE_SET or not re.search(rf"\b{re.escape(name)}\b", template):
            raise ModelError(f"chat_template_kwargs: the chat template does not read {name!r}; leave it out")
        before += "{%- set " + name + " = " + repr(value) + " %}"
    if system_message is not None:
        own = repr({"role": "system", "content": system_message})
        before += "{%- if messages[0].role not in ('system', 'developer') %}{%- set messages = [" + own + "]"
        before += " + messages %}{%- endif %}"
    if special_tokens == "special":
        before += _KEEP_MEANING
    tokenizer.chat_template = before + template
    try:
        render(tokenizer, _PROBE, "!")
    except ConversationError as error:
        raise ModelError(f"the simplest conversation, of one question and its answer: {error.problem}") from error


def reads_special_tokens(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether special tokens within a text keep their meaning."""
    return _KEEP_MEANING in (tokenizer.chat_template or "")


@contextlib.contextmanager
def special_tokens_meant(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Within the block special tokens in a text keep their meaning, as they do in plain transformers."""
    own = tokenizer.chat_template
    tokenizer.chat_template = _KEEP_MEANING + tokenizer.get_chat_template()
    try:
        yield
    finally:
        tokenizer.chat_template = own


def render(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: Response) -> str:
    """The conversation as the chat template writes it, response included, with the clock stopped at a fixed date.

    Special tokens within a message are marked, which `tokens.encode_texts` undoes. Raises ConversationError where the
    template refuses the conversation or leaves the answer out.
    """
    return rendered(tokenizer, prompt, response)[0]


def rendered(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: Response, row: int = 0
) -> tuple[str, list[str]]:
    """What `render` gives, and what of the conversation is not there as it stands: texts by role, other keys by name.

    `row` is what a ConversationError says of its place.
    """
    messages = _messages_of(tokenizer, prompt, response)
    text = _written(tokenizer, messages, row)
    missing = [f"the text of {message['role']}" for message in messages if message["content"].strip() not in text]
    if any(len(message) > 2 for message in messages):
        for key in sorted({key for message in messages for key in message} - {"role", "content"}):
            without = [{name: value for name, value in message.items() if name != key} for message in messages]
            with contextlib.suppress(ConversationError):
                missing += [key] if _written(tokenizer, without, row) == text else []
    if messages[-1]["content"].strip() not in text or not isinstance(response, str):
        # An answer that is rewritten, one without its thoughts for instance, still changes the text.
        others = [_written(tokenizer, _messages_of(tokenizer, prompt, other), row) for other in ("", "x" * 32)]
        if text in others:
            raise ConversationError(row, f"the chat template leaves the answer out{_wants_parts(tokenizer, messages)}")
    return text, missing


def _messages_of(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: Response) -> list[dict[str, Any]]:
    """All messages with their own keys, special tokens within them marked."""
    messages = [dict(message) if len(message) == 2 else with_own_keys(message) for message in prompt]
    messages.append({"role": "assistant", "content": response} if isinstance(response, str) else as_message(response))
    marks = _marks_of(tokenizer)
    return [marks.in_value(message) for message in messages] if marks.pattern else messages


def _written(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], row: int) -> str:
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = STOPPED_CLOCK + template
    try:
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, date_string=TEMPLATE_DATE
        )
    except REFUSALS as error:
        roles = ", ".join(str(message["role"]) for message in messages)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        problem = f"the chat template refuses a conversation of {roles} ({reason})"
        raise ConversationError(row, problem + _wants_parts(tokenizer, messages)) from error
    assert isinstance(text, str)
    return text


def _wants_parts(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]]) -> str:
    """What to do about a refusal: another template, and whether this one wants contents as lists of parts."""
    parts = [message | {"content": [{"type": "text", "text": message["content"]}]} for message in messages]
    with contextlib.suppress(*REFUSALS):
        answer = messages[-1]["content"]
        if answer and answer in str(tokenizer.apply_chat_template(parts, tokenize=False)):
            return ": it wants each content as a list of parts; give a chat_template that takes texts"
    return "; leave the conversation out, or give a chat_template that takes it"


# --- special tokens within a text -------------------------------------------------------------------------------------

MARK = "\U000ffffd"  # private use: no text has a reason to hold it, and one that does is written with two
_FIRST = 0xF0000  # the character behind a mark says which special token stood there

# Of each tokenizer its size when it was read, its template, and its marks.
_MARKS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, str | None, _Marks]] = WeakKeyDictionary()


@dataclass(frozen=True)
class _Marks:
    """The special tokens of a tokenizer, and the pattern that finds them in a text; None where they keep meaning."""

    specials: list[str]
    starts: frozenset[str]  # what each begins with
    pattern: re.Pattern[str] | None

    def in_value(self, value: Any) -> Any:
        """The value with all special tokens in its texts replaced by marks, at any depth; itself where it has none."""
        if isinstance(value, str):
            assert self.pattern is not None
            # Looking for a few short strings takes a tenth of the time of a pattern with hundreds of branches.
            return self.pattern.sub(self._mark, value) if any(start in value for start in self.starts) else value
        if isinstance(value, Mapping):
            return {key: item if key == "role" else self.in_value(item) for key, item in value.items()}
        return [self.in_value(item) for item in value] if isinstance(value, list) else value

    def _mark(self, found: re.Match[str]) -> str:
        return MARK + (MARK if found[0] == MARK else chr(_FIRST + self.specials.index(found[0])))


def _marks_of(tokenizer: PreTrainedTokenizerBase) -> _Marks:
    known = _MARKS.get(tokenizer)
    if known is None or known[:2] != (len(tokenizer), tokenizer.chat_template):
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        # The longest first, since one may begin with another.
        specials = sorted((token.content for token in added if token.special), key=lambda one: (-len(one), one))
        pattern = None
        if specials and not reads_special_tokens(tokenizer):
            pattern = re.compile("|".join(map(re.escape, [*specials, MARK])))
        marks = _Marks(specials, frozenset(special[:4] for special in [*specials, MARK]), pattern)
        known = _MARKS[tokenizer] = len(tokenizer), tokenizer.chat_template, marks
    return known[2]


def unmarked(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The rendered text as its author would read it, special tokens within messages written out again."""
    specials = _marks_of(tokenizer).specials
    return re.sub(f"{MARK}(.)", lambda found: MARK if found[1] == MARK else specials[ord(found[1]) - _FIRST], text)
