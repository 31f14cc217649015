"""What became of every rollout of a step: the uses and drops that go on the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from services.learning.group import Group, Member
from services.learning.intake import Ready
from services.learning.ranks import World
from sluice.v1 import training_pb2


@dataclass(frozen=True)
class StepResult:
    """What one step did. On ranks above 0 only `version`, `skipped` and `metrics` are filled."""

    version: int
    """The version that was trained."""
    skipped: str = ""
    """Why nothing was updated ("nan_step", "empty_step"); empty when it was."""
    uses: tuple[training_pb2.Use, ...] = ()
    """Rollouts trained on, with their mean weight, advantage and lag."""
    dropped: tuple[tuple[Member, str], ...] = ()
    """Rollouts left out, with their reason: a bounded set."""
    shifts: tuple[training_pb2.PromptShift, ...] = ()
    """Movement per prompt, where the recipe measures it."""
    metrics: dict[str, float] = field(default_factory=dict)


def rows(ready: Ready, rows_N3: Tensor | None, skipped: str, reasons: Sequence[str]) -> Tensor:
    """One row per rollout handed to this rank: (number of its reason, mean weight, advantage, lag)."""
    found = torch.zeros((len(ready.reasons), 4), dtype=torch.float64)
    found[:, 0] = torch.tensor([reasons.index(reason) for reason in ready.reasons], dtype=torch.float64)
    if rows_N3 is not None and len(ready.rows):
        found[list(ready.rows), 1:] = rows_N3.cpu()
    if skipped and len(ready.rows):
        found[list(ready.rows), 0] = reasons.index(skipped)
    return found


def settle(
    world: World, groups: Sequence[Group] | None, deals: list[list[int]], mine: Tensor, reasons: Sequence[str]
) -> tuple[list[training_pb2.Use], list[tuple[Member, str]]]:
    """Uses and drops of the whole step, in the order of `groups`; empty on ranks above 0. Collective."""
    gathered = world.gather_rows(mine.to(world.device))
    if groups is None:
        return [], []
    told: dict[tuple[int, int], list[float]] = {}
    for deal, table in zip(deals, gathered, strict=True):
        places = [(index, row) for index in deal for row in range(len(groups[index].members))]
        told |= dict(zip(places, table.tolist(), strict=True))
    uses: list[training_pb2.Use] = []
    dropped: list[tuple[Member, str]] = []
    for index, group in enumerate(groups):
        for row, member in enumerate(group.members):
            number, weight, advantage, lag = told[index, row]
            reason = reasons[int(number)]
            if reason:
                dropped.append((member, reason))
            else:
                uses.append(use(member, weight, advantage, lag))
    return uses, dropped


def use(member: Member, weight: float, advantage: float, lag: float) -> training_pb2.Use:
    """One use of a rollout."""
    rollout = member.rollout
    return training_pb2.Use(
        key=rollout.key, use=member.use, weight=weight, advantage=advantage, lag=lag, group_id=rollout.group_id
    )
