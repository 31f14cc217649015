"""A cgroup (version 2) of its own for every jail, where the operator has delegated a folder to make them in.

The kernel then holds the memory and the processes of the whole jail, and ends all of it at once. Where none is
delegated, each process has its rlimits, and the zygote adds them up and kills: that is slower by a tick.

    mkdir /sys/fs/cgroup/sluice && echo '+memory +pids' > /sys/fs/cgroup/sluice/cgroup.subtree_control
    SLUICE_CGROUP=/sys/fs/cgroup/sluice sluice serve verification ...     # who is not root must own the folder
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from pathlib import Path

from services.verification.sandbox.limits import FOLDER_MB, JailLost, Limits

VARIABLE = "SLUICE_CGROUP"
CONTROLLERS = ("memory", "pids")
ZYGOTE_MB, ZYGOTE_PROCESSES = 64, 8
END_S = 2.0
_NUMBERS = itertools.count()


def refusal() -> str:
    """Why the folder that was named cannot be used; empty when it can, or when none was named."""
    home = os.environ.get(VARIABLE)
    if not home:
        return ""
    try:
        ready = (Path(home) / "cgroup.subtree_control").read_text().split()
    except OSError as error:
        return f"{VARIABLE} is {home!r} ({error.strerror}); accepted: a folder of a cgroup version 2"
    missing = [name for name in CONTROLLERS if name not in ready]
    if missing:
        cure = f"write '+{' +'.join(missing)}' to its cgroup.subtree_control"
        return f"{VARIABLE} is {home!r}, which does not hand on {' and '.join(missing)}; {cure}"
    return "" if os.access(home, os.W_OK) else f"{VARIABLE} is {home!r}, which this user may not write; chown it"


class Cgroup:
    """One jail's; nothing at all where none is delegated. Raises `JailLost` when it cannot be made."""

    def __init__(self) -> None:
        home = os.environ.get(VARIABLE)
        self._folder = Path(home) / f"jail-{os.getpid()}-{next(_NUMBERS)}" if home else None
        if self._folder is not None:
            try:
                self._folder.mkdir()
            except OSError as error:
                raise JailLost(f"no cgroup for the jail: {error}") from error

    def enter(self) -> list[str]:
        """What goes before a command, so that it and all that it starts are inside from the first."""
        if self._folder is None:
            return []
        return ["sh", "-c", 'echo 0 > "$0" && exec "$@"', str(self._folder / "cgroup.procs")]

    def limit(self, limits: Limits) -> None:
        """What the next job may use. Its two folders are memory, too."""
        memory = (limits.memory_mb + ZYGOTE_MB + 2 * FOLDER_MB) * 2**20
        self._write("memory.max", memory)
        self._write("memory.swap.max", 0)
        self._write("pids.max", limits.processes + ZYGOTE_PROCESSES)

    def memory_kills(self) -> int:
        """How many processes the kernel has killed for their memory."""
        if self._folder is None or not (self._folder / "memory.events").exists():
            return 0
        events = dict(line.split() for line in (self._folder / "memory.events").read_text().splitlines())
        return int(events.get("oom_kill", 0))

    def end(self) -> None:
        """Kill what is left in it, and remove it."""
        self._write("cgroup.kill", 1)
        deadline = time.monotonic() + END_S
        while self._folder is not None and self._folder.exists() and time.monotonic() < deadline:
            with suppress(OSError):
                self._folder.rmdir()
                return
            time.sleep(0.005)

    def _write(self, name: str, value: int) -> None:
        if self._folder is not None and (self._folder / name).exists():
            (self._folder / name).write_text(str(value))
