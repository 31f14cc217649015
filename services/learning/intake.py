"""From groups to a batch that is ready for the model: reward, and who stays.

Every rollout that leaves does so with a reason, and leaves before any statistic that it should not be in: first what is
malformed, then what has no reward (a failure of ours is never reward 0), then groups left too short, then what the
recipe's selections leave out, in their order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.build import Method
from services.learning.collate import flaw
from services.learning.group import Group, Member
from services.learning.reduce import group_size
from sluice.v1 import rollout_pb2

Collate = Callable[[Sequence[Group]], Batch]

UNREWARDED = {
    rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR: "infra_error",
    rollout_pb2.VERDICT_OUTCOME_NOT_RUN: "not_run",
}


@dataclass(frozen=True)
class Ready:
    """A batch, and what became of each rollout that was handed in."""

    batch: Batch
    rows: tuple[int, ...]
    """Position, among the rollouts handed in, of each row of the batch."""
    reasons: tuple[str, ...]
    """Why each rollout handed in was left out; empty for those that stay."""

    def without(self, keep_N: Tensor, reason: str | Sequence[str]) -> Ready:
        """Leave out the rows that are not kept. Denominators are not counted anew."""
        if bool(keep_N.all()):
            return self
        reasons = list(self.reasons)
        for row in (~keep_N).nonzero().flatten().tolist():
            reasons[self.rows[row]] = reason if isinstance(reason, str) else reason[row]
        left = keep_N.nonzero().flatten()
        rows = tuple(self.rows[row] for row in left.tolist())
        return Ready(self.batch.rows(left), rows, tuple(reasons))

    def select(self, part: Any) -> Ready:
        """Apply a select part: rows leave, or single tokens stop being trained on."""
        keep = part(self.batch)
        if keep.dim() == 1:
            return self.without(keep, part.reason)
        masked = dataclasses.replace(self.batch, mask_NT=self.batch.mask_NT & keep)
        return dataclasses.replace(self, batch=masked)


def intake(method: Method, groups: Sequence[Group], collate: Collate) -> Ready:
    """Collate, reward, and select what does not need the advantage. Collective over the batch's ranks."""
    sound, rows, reasons = _sound(groups)
    ready = Ready(collate(sound), rows, reasons)
    ready = dataclasses.replace(ready, batch=rewarded(method, ready.batch))
    names = [UNREWARDED.get(outcome, "no_reward") for outcome in ready.batch.outcome_N.tolist()]
    ready = ready.without(~ready.batch.reward_N.isnan(), names)
    ready = ready.without(group_size(ready.batch) >= method.recipe.min_group, "short_group")
    for part in method.select:
        if "advantage" not in getattr(part, "needs", ()):
            ready = ready.select(part)
    return dataclasses.replace(ready, batch=ready.batch.counted())


def rewarded(method: Method, batch: Batch) -> Batch:
    """The batch with its combined reward."""
    reward_N = batch.reward_N
    for part in method.reward:
        reward_N = part(batch, reward_N)
    return dataclasses.replace(batch, reward_N=reward_N.to(batch.accuracy_N.dtype))


def advantage(method: Method, batch: Batch) -> Tensor:
    """The advantage, [N] or [N, T]: the base part, then the modifiers in order. Collective where a part is.

    0 for a recipe whose objective needs none.
    """
    if method.advantage is None:
        return torch.zeros_like(batch.reward_N)
    found = method.advantage(batch)
    for modifier in method.modifiers:
        found = modifier(batch, found)
    return found.detach()


def _sound(groups: Sequence[Group]) -> tuple[list[Group], tuple[int, ...], tuple[str, ...]]:
    """Groups without malformed members, the positions of those that stay, and every rollout's reason."""
    reasons = [flaw(member) or "" for group in groups for member in group.members]
    rows = tuple(row for row, reason in enumerate(reasons) if not reason)
    if len(rows) == len(reasons):
        return list(groups), rows, tuple(reasons)
    flags = iter(reasons)
    sound = [dataclasses.replace(g, members=tuple(m for m in g.members if not next(flags))) for g in groups]
    return sound, rows, tuple(reasons)


def unrewarded(member: Member) -> bool:
    """Whether a verdict says nothing of the answer, so that the rollout cannot be trained on."""
    return member.verdict.outcome in UNREWARDED or member.verdict.outcome == 0 or bool(flaw(member))


def row_reasons(method: Method) -> list[str]:
    """Every reason that a row of this method may leave with; a fixed order, so that ranks can say it by number."""
    own = [part.reason for part in method.select]
    fixed = ["", "malformed", "untrainable_temperature", *UNREWARDED.values(), "no_reward", "short_group"]
    return list(dict.fromkeys([*fixed, *own, "nan_step", "empty_step"]))


def float_dtype(model: torch.nn.Module) -> torch.dtype:
    """float64 for a float64 model (tests), float32 for every other."""
    double = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    return torch.float64 if double else torch.float32
