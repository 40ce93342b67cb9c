"""A reward model behind a server as a scorer: vLLM (`/classify`) or text-embeddings-inference (`/predict`).

Rewards are the raw logits: by default both servers put a sigmoid or a softmax on them, which is switched off with every
question (docs/serving.md). Nothing that a server answers is kept, since it may serve another model tomorrow.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from rmlib.benchmarks.endpoint import Endpoint, EndpointError
from rmlib.models.interface import Prompt
from rmlib.pairs.messages import Response, as_message, text_of, with_own_keys

logger = logging.getLogger(__name__)

CLASSIFY, PREDICT = "/classify", "/predict"


class RewardServer:
    """A scorer that asks a server, with several questions at a time.

    The URL of the endpoint is that of the server, or whole with the path that is asked: "/classify", which is taken
    where none is given, sends the conversation to be written in the served model's chat template; "/predict" sends
    prompt and response as the two segments of an encoder. The endpoint's `model` may be empty.
    """

    def __init__(self, endpoint: Endpoint, workers: int = 8) -> None:
        base = endpoint.url.rstrip("/")
        self.path = PREDICT if base.endswith(PREDICT) else CLASSIFY
        self.endpoint = replace(endpoint, url=base.removesuffix(self.path).removesuffix("/v1"))
        self.name, self.workers = endpoint.model or "server", workers
        self._suspected = False

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Float[np.ndarray, "response"]:
        """The reward of each response.

        Raises ConnectionError for a question that the server does not answer with one number, ValueError where each
        answer is exactly 1, as a softmax over one logit is.
        """
        with ThreadPoolExecutor(self.workers) as pool:
            rewards = np.array(list(pool.map(self._reward, prompts, responses)), dtype=float)
        if len(rewards) > 1 and (rewards == 1).all():
            raise ValueError("each reward is 1: the server puts a softmax on the one logit; see docs/serving.md")
        if len(rewards) > 1 and not self._suspected and ((rewards >= 0) & (rewards <= 1)).all():
            self._suspected = True
            logger.warning("all of %d rewards lie in 0..1: has the server put a sigmoid on the logit?", len(rewards))
        return rewards

    def _reward(self, prompt: Prompt, response: Response) -> float:
        content = (_of_classify if self.path == CLASSIFY else _of_predict)(prompt, response)
        if self.endpoint.model:
            content["model"] = self.endpoint.model
        try:
            return self.endpoint.ask(self.path, content, _number_in)
        except EndpointError as error:
            hint = "; is the path right, and is no text longer than it takes?" if error.kind == "refused" else ""
            raise ConnectionError(f"the server asked at {self.path} gives no reward: {error}{hint}") from error


def is_url(name: object) -> bool:
    """Whether the name of a scorer is the URL of a server."""
    return str(name).startswith(("http://", "https://"))


def _of_classify(prompt: Prompt, response: Response) -> dict[str, Any]:
    messages = [with_own_keys(message) for message in prompt] + [as_message(response)]
    # The template writes what begins and ends a text, so that nothing is to be added by the server.
    plain = {"add_generation_prompt": False, "add_special_tokens": False}
    return {"messages": messages, "use_activation": False} | plain


def _of_predict(prompt: Prompt, response: Response) -> dict[str, Any]:
    segments = ["\n".join(message["content"] for message in prompt), text_of(response)]
    return {"inputs": [segments], "raw_scores": True, "truncate": False}


def _number_in(reply: bytes) -> float:
    """The one logit of a reply, `{"data": [{"probs": [x]}]}` or `[[{"score": x}]]`. Raises EndpointError."""
    try:
        found = json.loads(reply)
        [logit] = found["data"][0]["probs"] if isinstance(found, Mapping) else [row["score"] for row in found[0]]
        return float(logit)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise EndpointError("nonsense", f"{len(reply):,} bytes that are not the score of one label") from None
