"""What time it is in what has been read.

A deadline may only end a rollout when everything written before it has been read: after a restart the log is full of
rollouts whose deadlines passed long ago and which lie there, finished. So the clock of a partition is the time of its
last record read. It goes to the wall clock only when poll after poll brings nothing from it: one empty poll proves
nothing, for a fetch may be on its way, and neither does a poll after a long step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.log.api import Position, Record

QUIET_MS = 3_000
"""A partition has been read to its end when polls brought nothing from it for so long."""
GAP_MS = 1_000
"""Polls further apart than this are not poll after poll."""


@dataclass
class ReadClock:
    """The slowest of its partitions' clocks, milliseconds since the Unix epoch.

    >>> clock = ReadClock([("rollouts", 0), ("rollouts", 1)])
    >>> old = Record("rollouts", 0, 7, b"", b"", (), timestamp_ms=1_000)
    >>> clock.read([old], now_ms=50_000)
    0
    >>> [clock.read([], now_ms) for now_ms in range(50_500, 54_000, 500)]
    [0, 0, 0, 0, 0, 1000, 53500]
    """

    positions: Iterable[Position]
    _times: dict[Position, int] = field(init=False)
    _quiet_since: dict[Position, int] = field(init=False, default_factory=dict)
    _polled_ms: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._times = dict.fromkeys(self.positions, 0)

    def read(self, records: Iterable[Record], now_ms: int) -> int:
        """A poll brought these; returns the time until which everything was read."""
        newest = {(record.topic, record.partition): record.timestamp_ms for record in records}
        if now_ms - self._polled_ms > GAP_MS:
            self._quiet_since = {}
        self._polled_ms = now_ms
        for position in self._times:
            if position in newest:
                self._quiet_since.pop(position, None)
                self._times[position] = min(now_ms, newest[position])
            elif now_ms - self._quiet_since.setdefault(position, now_ms) >= QUIET_MS:
                self._times[position] = now_ms
        return min(self._times.values(), default=now_ms)
