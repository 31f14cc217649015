"""Whether a worker process, with all that it started, uses a CPU, or only waits."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

WAITS_BELOW = 0.1
"""Who waits uses less than this share of a CPU; and asks for none, which tells it from who is kept from one."""
SOONEST_S = 0.02
"""A CPU's share is known after so long, two ticks of its clock."""
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Seen(NamedTuple):
    """Of a process and its descendants: CPU seconds so far, and whether one of them runs or is ready to."""

    cpu_s: float
    runs: bool


class Watch:
    """Looks at one process, the less often the longer it watches."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = self._looked = time.monotonic()
        self._cpu_s = look(pid).cpu_s
        self._waits = False

    @property
    def pause_s(self) -> float:
        """From one look to the next."""
        return max(SOONEST_S, self._looked - self._began)

    def waits(self) -> bool:
        """Whether it used next to no CPU lately, and wants none now."""
        now = time.monotonic()
        if now - self._looked > self.pause_s:
            seen = look(self._pid)
            self._waits = not seen.runs and seen.cpu_s - self._cpu_s < WAITS_BELOW * (now - self._looked)
            self._looked, self._cpu_s = now, seen.cpu_s
        return self._waits


def look(pid: int) -> Seen:
    """What a process does. Where there is no /proc, as if it always ran.

    >>> look(os.getpid()).runs
    True
    """
    ticks, runs, tree = 0, not os.path.isdir(f"/proc/{pid}"), [str(pid)]
    for one in tree:
        try:
            with open(f"/proc/{one}/stat", "rb") as file:
                state, *fields = file.read().rpartition(b") ")[2].split()
            with open(f"/proc/{one}/task/{one}/children") as file:
                tree += file.read().split()
        except OSError:
            continue
        runs |= state == b"R"
        # utime, stime, and those of its children that have ended
        ticks += sum(map(int, fields[10:14]))
    return Seen(ticks / _CLOCK_TICKS, runs)
