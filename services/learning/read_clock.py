"""What time it is in what has been read.

A deadline may only end a rollout when everything written before it has been read: after a restart the log is full of
rollouts whose deadlines passed long ago and which lie there, finished. So the clock of a partition is the time of its
last record read, and goes to the wall clock only when polls bring nothing more from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.log.api import Position, Record

QUIET_POLLS = 3
"""A partition that brought nothing in so many polls that brought records of others has nothing more for now."""


@dataclass
class ReadClock:
    """The slowest of its partitions' clocks, milliseconds since the Unix epoch.

    >>> clock = ReadClock([("rollouts", 0), ("rollouts", 1)])
    >>> old = Record("rollouts", 0, 7, b"", b"", (), timestamp_ms=1_000)
    >>> [clock.read([old], now_ms=9_000) for _ in range(3)], clock.read([], now_ms=9_100)
    ([0, 0, 1000], 9100)
    """

    positions: Iterable[Position]
    _times: dict[Position, int] = field(init=False)
    _quiet: dict[Position, int] = field(init=False)

    def __post_init__(self) -> None:
        self._times = dict.fromkeys(self.positions, 0)
        self._quiet = dict.fromkeys(self._times, 0)

    def read(self, records: Iterable[Record], now_ms: int) -> int:
        """A poll brought these; returns the time until which everything was read."""
        newest = {(record.topic, record.partition): record.timestamp_ms for record in records}
        for position in self._times:
            if position in newest:
                self._quiet[position] = 0
                self._times[position] = min(now_ms, newest[position])
            else:
                self._quiet[position] += 1
                if not newest or self._quiet[position] >= QUIET_POLLS:
                    self._times[position] = now_ms
        return min(self._times.values(), default=now_ms)
