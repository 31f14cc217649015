"""Which groups the next batch is made of: (buffer, version) -> choice. One file per policy; this page has the nouns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from services.learning.group import Group, Member


@dataclass(frozen=True, slots=True)
class Held:
    """A closed group that waits in the buffer. `uses`: how often it was trained on."""

    group: Group
    uses: int = 0
    advantage: float | None = None
    """Mean absolute advantage of its rollouts at the last use; None when that is not known."""
    borrowed: tuple[Member, ...] = ()
    """Rollouts that other groups of the buffer lend for the next use, each numbered for it."""

    @classmethod
    def of(cls, group: Group) -> Held:
        """A group as it closed: its members know how often they were trained on before a restart."""
        return cls(group, max(member.use for member in group.members) - 1)

    def next_use(self) -> Group:
        """The group with its members numbered for the next use, and what it borrows behind them."""
        members = tuple(replace(member, use=self._number(member)) for member in self.group.members)
        return replace(self.group, members=members + self.borrowed)

    def lend(self, names: Collection[tuple[str, int]]) -> tuple[Held, tuple[Member, ...]]:
        """The group after these members were lent for one use, and the members numbered for that use."""
        lent = tuple(replace(m, use=self._number(m)) for m in self.group.members if m.name in names)
        numbers = {member.name: member.use + 1 for member in lent}
        members = tuple(replace(m, use=numbers.get(m.name, m.use)) for m in self.group.members)
        return replace(self, group=replace(self.group, members=members), uses=self.uses + 1), lent

    def _number(self, member: Member) -> int:
        return max(self.uses + 1, member.use)


@dataclass(frozen=True, slots=True)
class Choice:
    """What becomes of the buffer: every held group is in exactly one of the five.

    `batch`: trained on now; empty when there are too few. `kept`: stays, in order. `stale`: never trained on, too old.
    `retired`: trained on before, not again. `refilled`: all members alike, its place in the batch went to another.
    """

    batch: tuple[Held, ...] = ()
    kept: tuple[Held, ...] = ()
    stale: tuple[Held, ...] = ()
    retired: tuple[Held, ...] = ()
    refilled: tuple[Held, ...] = ()


class Replay(Protocol):
    """A replay policy."""

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """Choose `batch_groups` groups for the step that trains `version`; none when there are too few.

        `max_lag`: the run's hard bound at first use, in versions.
        """
        ...
