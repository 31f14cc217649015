"""Whether a worker process, with all that it started, uses a CPU or only waits."""

from __future__ import annotations

import os
import time

WAITS_BELOW = 0.1
"""It waits when it uses less than this share of a CPU."""
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class Watch:
    """Looks at one process, the less often the longer it watches."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = self._looked = time.monotonic()
        self._cpu_s = cpu_s(pid)
        self._waits = False

    def waits(self) -> bool:
        """Whether it used next to no CPU lately."""
        now = time.monotonic()
        if now - self._looked > max(0.05, (self._looked - self._began) / 4):
            spent = cpu_s(self._pid)
            self._waits = spent - self._cpu_s < WAITS_BELOW * (now - self._looked)
            self._looked, self._cpu_s = now, spent
        return self._waits


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its descendants. Where there is no /proc: the clock, as if it always used a CPU.

    >>> cpu_s(os.getpid()) > 0
    True
    """
    if not os.path.isdir(f"/proc/{pid}"):
        return time.monotonic()
    ticks, found = 0, [str(pid)]
    for one in found:
        try:
            with open(f"/proc/{one}/stat", "rb") as file:
                # utime, stime, and those of its children that have ended
                ticks += sum(map(int, file.read().rpartition(b") ")[2].split()[11:15]))
            with open(f"/proc/{one}/task/{one}/children") as file:
                found += file.read().split()
        except OSError:
            continue
    return ticks / _CLOCK_TICKS
