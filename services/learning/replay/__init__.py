"""Which groups the next batch is made of: (buffer, version) -> choice. One file per policy; this page has the nouns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from services.learning.group import Group


@dataclass(frozen=True, slots=True)
class Held:
    """A closed group that waits in the buffer. `uses`: how often it was trained on."""

    group: Group
    uses: int = 0

    def next_use(self) -> Group:
        """The group with its members numbered for the next use."""
        members = tuple(replace(member, use=self.uses + 1) for member in self.group.members)
        return replace(self.group, members=members)


@dataclass(frozen=True, slots=True)
class Choice:
    """What becomes of the buffer: every held group is in exactly one of the four.

    `batch`: trained on now; empty when there are too few. `kept`: stays, in order. `stale`: never trained on, too old.
    `retired`: trained on before, not again.
    """

    batch: tuple[Held, ...] = ()
    kept: tuple[Held, ...] = ()
    stale: tuple[Held, ...] = ()
    retired: tuple[Held, ...] = ()


class Replay(Protocol):
    """A replay policy."""

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """Choose `batch_groups` groups for the step that trains `version`; none when there are too few.

        `max_lag`: the run's hard bound at first use, in versions.
        """
        ...
