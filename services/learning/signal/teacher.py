"""The self-teacher: a slow copy of the policy that reads each rollout again after a sibling's right answer (SDPO).

    teacher <- (1 - rate) teacher + rate policy            after every step
    context' = context, the answer of the group's shortest right sibling (never the rollout itself), context

gives "pick" [N, T, K] (its likeliest tokens), "teacher_top" [N, T, K] (their log-probs), "teacher_logp" [N, T] (of the
sampled token), "teacher_entropy" [N, T] and "taught" [N] (1 where the rollout has such a sibling).

Source: SDPO (lasgroup/SDPO), where the sibling and the feedback of a checker are written into the user's turn by a text
template; here the sibling stands as an earlier turn, which needs no template, and feedback is not used. The released
teacher is the same: an average of the weights at rate 0.05, K = 100 (the likelihood's `top`).
Odd cases: a rollout without a right sibling has no teacher and `taught` 0. Calls that begin a new context see the
sibling too. The teacher is kept in the checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.knobs import check, knob
from services.learning import lora
from services.learning.batch import Batch
from services.learning.collate import collate
from services.learning.group import Group
from services.learning.reprompt import after, best_siblings
from services.learning.signal import Score

WANTED = frozenset({"top", "entropy"})


@dataclass(frozen=True)
class Teacher:
    """Weights 1 and policy 3 at rate 0.05: 1.1 after one step."""

    rate: float = knob(0.05, "share of the policy that the teacher takes in per step", unit="share", ge=0, le=1)
    success: float = knob(0.5, "least accuracy of a sibling that teaches", unit="accuracy", ge=0, le=1)
    between: tuple[int, ...] = knob((), "token ids between the sibling's answer and the repeated context")

    __post_init__ = check

    copy: ClassVar[str] = "teacher"

    @property
    def still(self) -> bool:
        """Whether the copy never moves."""
        return not self.rate

    @torch.no_grad()
    def follow(self, teacher: nn.Module, model: nn.Module, steps: int) -> None:
        """Move the teacher's weights towards the policy's."""
        for own, new in zip(lora.own(teacher).values(), lora.own(model).values(), strict=True):
            own.lerp_(new, self.rate)

    def __call__(self, batch: Batch, score: Score) -> dict[str, Tensor]:
        right = (batch.accuracy_N >= self.success).tolist()
        siblings = best_siblings(batch.members, batch.group_N.tolist(), right)
        rows = [row for row, sibling in enumerate(siblings) if sibling is not None]
        shown = [after(batch.members[row], batch.members[siblings[row]], self.between) for row in rows]
        groups = [Group(str(row), "", (member,)) for row, member in zip(rows, shown, strict=True)]
        again = collate(groups, batch.version, batch.max_tokens, batch.token_NT.device, batch.behaviour_NT.dtype)
        found = score("teacher", again, WANTED)
        seen = found.signals if rows else {}
        known = torch.tensor(rows, dtype=torch.long, device=batch.token_NT.device)
        return {
            "pick": _placed(batch, rows, seen.get("top_ids", batch.token_NT[:, :, None])),
            "teacher_top": _placed(batch, rows, seen.get("top_logp", batch.behaviour_NT[:, :, None])),
            "teacher_logp": _placed(batch, rows, found.logp_NT),
            "teacher_entropy": _placed(batch, rows, seen.get("entropy", batch.behaviour_NT)),
            "taught": batch.behaviour_NT.new_zeros(len(batch)).index_fill_(0, known, 1.0),
        }


def _placed(batch: Batch, rows: list[int], x_MT: Tensor) -> Tensor:
    """Values of some rows among all rows, [N, T, ...]; zeros elsewhere."""
    found = x_MT.new_zeros((*batch.token_NT.shape, *x_MT.shape[2:]))
    if rows:
        found[rows, : x_MT.shape[1]] = x_MT
    return found
