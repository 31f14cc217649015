"""Finds the JSON in an answer. Where it is said, in this order: a tag, the last fenced block, the whole text."""

from __future__ import annotations

import re
from typing import Any

from services.verification import extract, plain

_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)```", re.DOTALL)
MAX_CHARS = 100_000


def find(text: str, tag: str) -> Any:
    """The value. Raises `ValueError`, with what is amiss, when there is none.

    >>> find('so: <answer>{"a": 1}</answer>', "answer"), find('```json\\n[1]\\n```', "")
    ({'a': 1}, [1])
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"{len(text)} characters; accepted: {MAX_CHARS}")
    tagged = extract.tagged(text, tag) if tag else None
    said = text if tagged is None else tagged
    fenced = _FENCE.findall(said)
    return plain.loads(fenced[-1] if fenced else said)
