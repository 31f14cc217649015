"""Which offsets may be committed when records finish out of order.

A partition's committable offset is that of its lowest unfinished record, or one past the highest taken when all are
finished. Pure: positions in, offsets out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.log.api import Position

Token = tuple[str, int, int]
"""(topic, partition, offset) of a record in work."""


@dataclass
class Unfinished:
    """Records taken and not finished.

    >>> work = Unfinished()
    >>> for offset in (4, 5, 9): work.take(("t", 0, offset))
    >>> work.finish(("t", 0, 5)); work.committable()
    {('t', 0): 4}
    >>> work.finish(("t", 0, 4)); work.committable()
    {('t', 0): 9}
    >>> work.finish(("t", 0, 9)); work.committable()
    {('t', 0): 10}
    """

    _open: dict[Position, set[int]] = field(default_factory=dict)
    _next: dict[Position, int] = field(default_factory=dict)
    _committed: dict[Position, int] = field(default_factory=dict)

    def take(self, token: Token) -> None:
        """A record begins."""
        topic, partition, offset = token
        self._open.setdefault((topic, partition), set()).add(offset)
        self._next[(topic, partition)] = max(offset + 1, self._next.get((topic, partition), 0))

    def has(self, token: Token) -> bool:
        """Is this record in work?"""
        return token[2] in self._open.get(token[:2], ())

    def finish(self, token: Token) -> None:
        """A record is done; one of a partition that was forgotten is no matter."""
        self._open.get(token[:2], set()).discard(token[2])

    def committable(self) -> dict[Position, int]:
        """Offsets that have moved since `committed` was last told."""
        found = {position: min(offsets, default=self._next[position]) for position, offsets in self._open.items()}
        return {position: offset for position, offset in found.items() if offset != self._committed.get(position)}

    def committed(self, offsets: dict[Position, int]) -> None:
        """These are on the log now."""
        self._committed.update(offsets)

    def keep(self, held: Iterable[Position]) -> None:
        """Forget partitions that other members hold now."""
        kept = set(held)
        for position in [position for position in self._open if position not in kept]:
            del self._open[position], self._next[position]
            self._committed.pop(position, None)

    def clear(self) -> None:
        """Forget everything: the log will deliver again what is not committed."""
        self._open.clear()
        self._next.clear()
        self._committed.clear()

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))
