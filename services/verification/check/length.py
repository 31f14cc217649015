"""Right when the answer's length is inside its bounds; the raw reward says how far outside it is.

    P(L) = 0 for low <= L <= high,   else -min(1, distance to the nearer bound / that bound)

Source: the length term of HARMO (arXiv:2510.05283) in this common form: the paper's own values are not public.
Odd cases: with `low` 0 there is no lower bound; with `high` 0 no upper one. Tokens are not counted here: a check knows
the text only, and a penalty on tokens is learning's (`learning.reward`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.verification import extract
from services.verification.finding import Finding, correct, wrong
from services.verification.spec import settings
from sluice.v1 import prompt_pb2

_COUNT = {"characters": len, "words": lambda text: len(text.split()), "lines": lambda text: len(text.splitlines())}


@dataclass(frozen=True)
class Length:
    """`spec.spec_json` may set `low` and `high` for one prompt. The raw reward "length" is P(L).

    >>> spec = prompt_pb2.CheckSpec(check="length")
    >>> check = Length(low=100, high=400, unit="words")
    >>> [round(check("x " * n, spec).rewards[0][1], 3) for n in (20, 100, 300, 600, 2000)]
    [-0.8, 0.0, 0.0, -0.5, -1.0]
    """

    low: int = knob(0, "the least; 0 means no lower bound", ge=0)
    high: int = knob(0, "the most; 0 means no upper bound", ge=0)
    unit: str = knob("characters", "what is counted", choices=("characters", "words", "lines"))
    tag: str = knob("", "count what follows the last <tag>; empty counts the whole text")

    version: ClassVar[str] = "1"
    in_process: ClassVar[bool] = True

    __post_init__ = check

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT inside the bounds, WRONG outside. Raises `UserError` when the bounds cannot be met."""
        low, high = self._bounds(spec)
        count = _COUNT[self.unit](extract.answer(answer_text, self.tag) if self.tag else answer_text)
        penalty = 0.0
        if low and count < low:
            penalty = -min(1.0, (low - count) / low)
        elif high and count > high:
            penalty = -min(1.0, (count - high) / high)
        evidence = f"{count} {self.unit}; accepted: {low} to {high or 'any'}"
        made = correct if penalty == 0 else wrong
        return made(evidence, (("length", penalty),))

    def _bounds(self, spec: prompt_pb2.CheckSpec) -> tuple[int, int]:
        told = {"low": self.low, "high": self.high} | settings("length", spec, ("low", "high"))
        low, high = told["low"], told["high"]
        if type(low) is not int or type(high) is not int or low < 0 or high < 0 or (high and low > high):
            raise UserError(f"length: low is {low!r} and high is {high!r}; accepted: 0 <= low <= high, high 0 for none")
        if not low and not high:
            raise UserError("length: low and high are both 0; accepted: at least one bound")
        return low, high
