"""Building one `Prompt` from plain values, the same way in every source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.digest import prompt_digest
from pipeline.errors import UserError
from sluice.v1 import prompt_pb2

ID_DIGITS = 24
"""Hexadecimal digits of an id made from content: 96 bits."""

GATE_KEY = "__gate__"
"""Key of the gate's record, beside those of the prompts on the `posterior` topic."""
RESERVED_IDS = ("", GATE_KEY)
"""Ids that no prompt can have."""
ACCEPTED_IDS = f"any other than {' and '.join(map(repr, RESERVED_IDS))}"
"""What a message says of an id that is reserved."""

ROLES = ("system", "user", "assistant", "tool")


def build(
    messages: Iterable[tuple[str, str]],
    check: prompt_pb2.CheckSpec,
    prompt_id: str = "",
    system: str = "",
    **labels: Any,
) -> prompt_pb2.Prompt:
    """A prompt of (role, text) messages, with its digest and a stable id.

    `prompt_id` is the data set's own id; without one it is the beginning of the digest, so that the same problem has
    the same id in every process. `system` goes in front. `labels` are further fields of `Prompt`: domain, family, ...

    >>> check = prompt_pb2.CheckSpec(check="exact", answer="4")
    >>> build([("user", "2 + 2?")], check).prompt_id == build([("user", "2 + 2?")], check, domain="math").prompt_id
    True
    """
    turns = ([("system", system)] if system else []) + list(messages)
    prompt = prompt_pb2.Prompt(
        messages=[prompt_pb2.Message(role=role, parts=[prompt_pb2.Part(text=text)]) for role, text in turns],
        check=check,
        **labels,
    )
    prompt.digest = prompt_digest(prompt)
    prompt.prompt_id = prompt_id or prompt.digest.hex()[:ID_DIGITS]
    return prompt


def turns_of(value: object, where: str) -> list[tuple[str, str]]:
    """(role, text) pairs from a data set's value: a text, or a list of {"role": ..., "content": ...}.

    >>> turns_of("2 + 2?", "row 1")
    [('user', '2 + 2?')]
    """
    if isinstance(value, str) and value.strip():
        return [("user", value)]
    if not isinstance(value, list) or not value:
        raise UserError(f"{where} is {_shown(value)}; accepted: a text that is not empty, or a list of messages")
    return [_turn(message, where) for message in value]


def text_of(prompt: prompt_pb2.Prompt) -> str:
    """Its question: the text of the last user message, or of the last message where no user speaks."""
    asked = [message for message in prompt.messages if message.role == "user"] or list(prompt.messages)
    return "".join(part.text for part in asked[-1].parts) if asked else ""


def _turn(message: object, where: str) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, Mapping) else None
    content = message.get("content") if isinstance(message, Mapping) else None
    if role not in ROLES or not isinstance(content, str):
        accepted = f'{{"role": one of {", ".join(ROLES)}, "content": text}}'
        raise UserError(f"{where} holds the message {_shown(message)}; accepted: {accepted}")
    return role, content


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
