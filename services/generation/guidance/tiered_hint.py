"""Hints from weak to strong for prompts that keep failing: the more evidence of failure, the stronger.

    stuck  = mean <= below, evidence >= after, step >= exempt_steps
    level  = 1 + floor((evidence - after) / per_level), at most the number of hints

Source: Scaf-GRPO, arXiv:2510.19807 (cumulative levels, none in the first steps: 50 in its script), and SAGE-light,
arXiv:2602.03143 (one level more while the prompt's accuracy is at most 0.1).
Odd cases. Both papers sample at every level and swap the whole group, or one rollout, for the first success; here the
level follows from the belief that the request carries, and the whole request is hinted. A prompt without a line in the
file gets none. Evidence decays where the estimate forgets: the level then falls again. A hint that makes the prompt too
long is left out. Hints are not checked for giving the answer away: generation never sees answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.knobs import check, knob
from services.generation.guidance import _library
from sluice.v1 import prompt_pb2


@dataclass(frozen=True)
class TieredHint:
    """With after 8 and per_level 8, evidence 7, 8, 15, 16 and 40 gives levels 0, 1, 1, 2 and, of 3 hints, 3.

    Its file has lines such as {"prompt_id": "p", "hints": ["knowledge", "plan", "solution"]}.
    """

    path: str = knob(doc="JSON Lines: prompt_id and hints, weakest first")
    below: float = knob(0.1, "mean pass rate up to which a prompt counts as stuck", unit="share", ge=0, le=1)
    after: float = knob(8.0, "evidence that it takes to say so", unit="rollouts", ge=0)
    per_level: float = knob(8.0, "evidence from one level to the next", unit="rollouts", gt=0)
    exempt_steps: int = knob(50, "steps in which nothing is hinted", ge=0)
    cumulative: bool = knob(True, "give the weaker hints too")

    confidence: ClassVar[str] = "guess"

    def __post_init__(self) -> None:
        check(self)
        _library.rows(self.path, ("hints",))

    def guide(self, request: prompt_pb2.RolloutRequest, history: prompt_pb2.Belief) -> list[prompt_pb2.Guidance]:
        """Hints 1 to level, or the one of that level."""
        row = _library.rows(self.path, ("hints",)).get(request.prompt_id)
        if row is None or not _library.stuck(history, self.below, self.after, self.exempt_steps):
            return []
        level = self.level(history.effective_n, len(row["hints"]))
        first = 1 if self.cumulative else level
        return [
            prompt_pb2.Guidance(kind="hint", level=at, text=str(row["hints"][at - 1]), source_id=f"hint-{at}")
            for at in range(max(first, 1), level + 1)
        ]

    def level(self, evidence: float, hints: int) -> int:
        """The strongest level given, from 1; 0 below `after`."""
        return 0 if evidence < self.after else min(hints, 1 + int((evidence - self.after) / self.per_level))
