"""An endpoint at a URL that the user names, as OpenAI's protocol has it: one question, one answer, or why not.

Nothing is sent anywhere unless an `Endpoint` was made, and a key only where the name of its variable was given. The key
is read when it is sent; it appears in no record, file or message. The client of huggingface_hub does not serve: it
follows redirects, which would carry question and key to another host.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

LARGEST_ANSWER = 10_000_000  # bytes; a longer one is nonsense
Found = TypeVar("Found")
RETRIED = {408, 425, 429, 500, 502, 503, 504}


class EndpointError(Exception):
    """A question without an answer; `kind` is "timeout", "refused", "nonsense" or "empty".

    After a fault that `may_pass`, the same question may well be answered.
    """

    def __init__(self, kind: str, detail: str, *, may_pass: bool = False) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind, self.detail, self.may_pass = kind, detail, may_pass


class _StaysHere(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host: it is an answer of its own, which counts as refused."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """Where a judge model or a reward model is asked, and how patiently.

    Attributes:
        url: the base, e.g. "http://127.0.0.1:8000/v1"; a judge is asked below it, at "/chat/completions".
        model: the name under which the endpoint serves it.
        timeout: seconds to wait for an answer, each time.
        retries: how often a question is asked again after a timeout, a broken connection, or a status that may pass.
        pause: seconds before the first of these, doubled each time.
        key_variable: name of the environment variable that holds the key, where the endpoint wants one.
    """

    url: str
    model: str
    timeout: float = 120.0
    retries: int = 2
    pause: float = 1.0
    max_tokens: int = 2048
    key_variable: str | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{self.url!r} is not the URL of an endpoint: it begins with http:// or https://")
        if self.key_variable is not None and not os.environ.get(self.key_variable):
            raise ValueError(f"the environment has no {self.key_variable}: set it to the key of the endpoint")

    def answer(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The text of the answer at temperature 0. Raises EndpointError."""
        asked = {"model": self.model, "messages": list(messages), "temperature": 0, "max_tokens": self.max_tokens}
        return self.ask("/chat/completions", asked, _text_of)

    def ask(self, path: str, content: Any, read: Callable[[bytes], Found]) -> Found:
        """What `read` finds in the reply to some JSON, posted to a path below the URL. Raises EndpointError."""
        body = json.dumps(content).encode()
        for attempt in range(self.retries + 1):
            try:
                return read(self._post(path, body))
            except EndpointError as error:
                if not error.may_pass:
                    raise
                if attempt == self.retries:
                    raise EndpointError(error.kind, f"{error.detail} ({self.retries + 1} times)") from error
                time.sleep(self.pause * 2**attempt)
        raise AssertionError("unreachable")

    def _post(self, path: str, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key_variable is not None:
            headers["Authorization"] = f"Bearer {os.environ[self.key_variable]}"
        request = urllib.request.Request(self.url.rstrip("/") + path, data=body, headers=headers)
        try:
            with urllib.request.build_opener(_StaysHere).open(request, timeout=self.timeout) as reply:
                content = reply.read(LARGEST_ANSWER + 1)
                if len(content) <= LARGEST_ANSWER and reply.length:  # of a cut answer read() says nothing
                    raise http.client.IncompleteRead(content)
                return content
        except urllib.error.HTTPError as error:
            error.close()
            raise EndpointError("refused", f"status {error.code}", may_pass=error.code in RETRIED) from None
        except TimeoutError:
            raise EndpointError("timeout", f"no answer within {self.timeout:g} s", may_pass=True) from None
        except urllib.error.URLError as error:
            kind = "timeout" if isinstance(error.reason, TimeoutError) else "refused"
            raise EndpointError(kind, str(error.reason), may_pass=True) from None
        except (OSError, http.client.HTTPException) as error:
            broken = f"the connection broke ({type(error).__name__})"
            raise EndpointError("refused", broken, may_pass=True) from None


def _text_of(reply: bytes) -> str:
    """The first choice's text. Raises EndpointError where there is none."""
    try:
        choices = json.loads(reply)["choices"]
        text = choices[0]["message"]["content"] if choices else None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise EndpointError("nonsense", f"{len(reply):,} bytes that are no chat completion") from None
    if text is None or text == "":
        raise EndpointError("empty", "no choice, or one without text")
    if not isinstance(text, str):
        raise EndpointError("nonsense", f"the answer is a {type(text).__name__}, not a text")
    return text
