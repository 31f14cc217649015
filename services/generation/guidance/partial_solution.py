"""The beginning of a worked solution, put into the policy's mouth: it goes on from there.

    eta ~ U[low, high],  the first ceil(eta * steps) steps of the solution, never the last;  a step is a line

Source: IGPO, arXiv:2509.10396 (injection ratio U[0.2, 0.6] where a whole group is wrong; answer tokens never injected),
which fills in a diffusion model's trace. The form for models that write from left to right, a prefix cut at a step, is
the reference notes' own.
Odd cases. All rollouts of a request share the prefix; eta is drawn from the request's id, so a redelivered request has
the same one. A solution of one line has nothing to give. The prefix is context: not trained on, where IGPO trains the
injected tokens of highest entropy. The last line is taken to hold the answer and is never given.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import ClassVar

from pipeline.knobs import check, knob
from services.generation.guidance import _library
from sluice.v1 import prompt_pb2


@dataclass(frozen=True)
class PartialSolution:
    """Of 5 lines, eta 0.2, 0.45 and 0.6 give 1, 3 and 3; of 2 lines each gives 1.

    Its file has lines such as {"prompt_id": "p", "solution": "first step\\nsecond step\\nanswer"}.
    """

    path: str = knob(doc="JSON Lines: prompt_id and solution, one step a line")
    low: float = knob(0.2, "least share of the steps given", unit="share", ge=0, le=1)
    high: float = knob(0.6, "largest share of the steps given", unit="share", ge=0, le=1)
    below: float = knob(0.0, "mean pass rate up to which a prompt is helped", unit="share", ge=0, le=1)
    after: float = knob(8.0, "evidence that it takes", unit="rollouts", ge=0)
    exempt_steps: int = knob(0, "steps in which nothing is given", ge=0)

    confidence: ClassVar[str] = "guess"

    def __post_init__(self) -> None:
        check(self)
        if self.low > self.high:
            raise ValueError(f"knob low is {self.low}; accepted: up to high, {self.high}")
        _library.rows(self.path, ("solution",))

    def guide(self, request: prompt_pb2.RolloutRequest, history: prompt_pb2.Belief) -> list[prompt_pb2.Guidance]:
        """One prefix, or none."""
        row = _library.rows(self.path, ("solution",)).get(request.prompt_id)
        if row is None or not _library.stuck(history, self.below, self.after, self.exempt_steps):
            return []
        digest = hashlib.sha256(f"{request.request_id}/eta".encode()).digest()
        eta = self.low + (self.high - self.low) * int.from_bytes(digest[:8], "big") / 2**64
        text = self.beginning(str(row["solution"]), eta)
        return [prompt_pb2.Guidance(kind="prefix", level=1, text=text, source_id=request.prompt_id)] if text else []

    def beginning(self, solution: str, eta: float) -> str:
        """The first steps of a solution; empty where there is only one."""
        steps = solution.strip().splitlines(keepends=True)
        return "".join(steps[: min(math.ceil(round(eta * len(steps), 9)), len(steps) - 1)])
