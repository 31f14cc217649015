"""What the parts that inject share: when a prompt is stuck, and texts by prompt from a file."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from sluice.v1 import prompt_pb2


def stuck(history: prompt_pb2.Belief, below: float, evidence: float, exempt_steps: int) -> bool:
    """Is a prompt believed to fail, on enough evidence, after the first steps?

    >>> stuck(prompt_pb2.Belief(mean=0.05, effective_n=16, as_of_step=60), 0.1, 8, 50)
    True
    """
    known = history.effective_n >= evidence and history.as_of_step >= exempt_steps
    return known and history.mean <= below


@lru_cache(maxsize=16)
def rows(path: str, needed: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """The objects of a JSON Lines file by their "prompt_id". Raises `ValueError` where a field is missing."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"knob path is {path!r}, which does not exist; accepted: a JSON Lines file")
    found: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            row = json.loads(line)
            missing = [name for name in ("prompt_id", *needed) if name not in row]
            if missing:
                raise ValueError(f"line {number} of {path!r} lacks {missing[0]!r}; accepted: objects with {needed}")
            found[str(row["prompt_id"])] = row
    return found
