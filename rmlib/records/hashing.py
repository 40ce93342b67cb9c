"""Names by content: of a state or a run, of a text, of the code that makes something."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, characters as they are."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def prompt_key(prompt: Sequence[Mapping[str, Any]]) -> str:
    """A text that is equal exactly when two prompts are equal: role, content and, where there are any, other keys."""
    return canonical_json([[message["role"], message["content"], *_more_of(message)] for message in prompt])


def _more_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    if len(message) == 2:
        return []
    more = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
    return [more] if more else []


def text_key(prompt: Sequence[Mapping[str, Any]], *responses: Any) -> str:
    """What names a prompt with its responses, in this order: 32 hex digits of a SHA-256."""
    return hashlib.sha256(canonical_json([prompt_key(prompt), *responses]).encode()).hexdigest()[:32]


def fingerprint(*parts: Any) -> str:
    """First 16 hex digits of the SHA-256 of the parts as JSON: the name of a state or of a run."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


PACKAGE = Path(__file__).resolve().parents[1]


@cache
def hash_of_code(*rooms: str, package: Path = PACKAGE) -> str:
    """16 hex digits of the source of whole rooms: what is kept under it is not read once any of their modules changed.

    A room is a folder of rmlib or a module beside the rooms ("models", "combining"). Raises FileNotFoundError for
    another name, since the hash of nothing would never change.
    """
    digest = hashlib.sha256()
    for room in sorted(rooms):
        files = sorted((package / room).rglob("*.py")) or [package / f"{room}.py"]
        for file in files:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(package).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:16]
