"""Solved examples in front of prompts that keep failing (in-context seeding).

    the k examples most like the prompt,  likeness = words in common / words in either (Jaccard)

Source: XRPO, arXiv:2510.06672: K = 2 nearest verified successes, prepended to prompts without a success, truncated;
none where there is none. Its nearness is of embeddings (Qwen3-Embedding-8B); words need no second model.
Odd cases. The prompt itself and its reformulations (the same "family_id" in the file, where given) are never examples.
Ties go to the smaller id. Examples without a word in common are none. They stand where every exemplar stands: at the
end of the conversation's last message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.knobs import check, knob
from services.generation.guidance import _library
from sluice.v1 import prompt_pb2

NEEDED = ("prompt", "solution")


@dataclass(frozen=True)
class SeedExample:
    """To "add 2 and 3", "add 5 and 2" has likeness 3 / 5 and "spell cat" 0: one example is given, of any k.

    Its file has lines such as {"prompt_id": "q", "prompt": "add 5 and 2", "solution": "5 + 2 = 7"}.
    """

    path: str = knob(doc="JSON Lines: prompt_id, prompt, solution, and family_id where prompts are rewordings")
    k: int = knob(2, "examples", ge=1)
    longest: int = knob(2000, "most characters of an example", unit="characters", ge=1)
    below: float = knob(0.0, "mean pass rate up to which a prompt is seeded", unit="share", ge=0, le=1)
    after: float = knob(8.0, "evidence that it takes", unit="rollouts", ge=0)
    exempt_steps: int = knob(0, "steps in which nothing is seeded", ge=0)

    confidence: ClassVar[str] = "guess"

    def __post_init__(self) -> None:
        check(self)
        _library.rows(self.path, NEEDED)

    def guide(self, request: prompt_pb2.RolloutRequest, history: prompt_pb2.Belief) -> list[prompt_pb2.Guidance]:
        """The nearest first."""
        if not _library.stuck(history, self.below, self.after, self.exempt_steps):
            return []
        text = " ".join(part.text for message in request.messages for part in message.parts)
        return [
            prompt_pb2.Guidance(
                kind="exemplar",
                level=1,
                text=f"Example:\n{row['prompt']}\n{row['solution']}"[: self.longest],
                source_id=str(row["prompt_id"]),
            )
            for row in self.nearest(request.prompt_id, text)
        ]

    def nearest(self, prompt_id: str, text: str) -> list[dict[str, Any]]:
        """The examples for this text."""
        rows = _library.rows(self.path, NEEDED)
        family = rows.get(prompt_id, {}).get("family_id")
        others = [
            row for key, row in rows.items() if key != prompt_id and (family is None or row.get("family_id") != family)
        ]
        liked = [(likeness(text, str(row["prompt"])), str(row["prompt_id"]), row) for row in others]
        liked = sorted((one for one in liked if one[0] > 0), key=lambda one: (-one[0], one[1]))
        return [row for _, _, row in liked[: self.k]]


def likeness(one: str, other: str) -> float:
    """Words in common, as a share of the words of either, in [0, 1].

    >>> likeness("add 2 and 3", "Add 5 and 2")
    0.6
    """
    first, second = (set(re.findall(r"\w+", text.lower())) for text in (one, other))
    return len(first & second) / len(first | second) if first | second else 0.0
