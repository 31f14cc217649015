"""A jail, from outside: starts it, hands jobs in, ends it.

One jail serves one caller, one job at a time. A job that was ended by force for what it did, or that left what could
not be cleaned, costs the jail its life: the caller starts another. Nothing of the caller is inside: not its
environment, files or descriptors, only a control socket that the program's own process does not have.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import Any

from services.verification.sandbox.cgroup import Cgroup
from services.verification.sandbox.launch import launch
from services.verification.sandbox.limits import JailLost, Limits
from services.verification.sandbox.running import GRACE_S, Running

START_S = 20.0


class Jail:
    """A jail with its zygote inside. Raises `JailLost` when it cannot be started. For one thread, which outlives it."""

    def __init__(self, warm: bool = True) -> None:
        self.good = True
        self._cgroup = Cgroup()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(self._cgroup.end)
            self._process = launch(theirs.fileno(), warm, self._cgroup.enter())
            undo.pop_all()
        self._control.settimeout(START_S)
        try:
            ready = self._control.recv(256)
        except OSError:
            ready = b""
        if not ready:
            raise JailLost(f"bubblewrap did not start a jail: {self.close() or 'it said nothing'}")
        self._control.setblocking(False)

    def start(self, kind: str, limits: Limits, given: dict[str, Any], stdin: bytes = b"") -> Running:
        """Start a job: "program", "calls" or "tests", with what its channel gives it first. Raises `JailLost`."""
        self._cgroup.limit(limits)
        return Running(self._control, self, kind, limits, given, stdin)

    def close(self) -> str:
        """End it, and all that is in it; what it said of itself."""
        if not self.good:
            return ""
        self.good = False
        said = self._die().strip()[-300:]
        self._cgroup.end()
        return said

    def memory_kills(self) -> int:
        """How many processes in it the kernel has killed for their memory."""
        return self._cgroup.memory_kills()

    @property
    def pid(self) -> int:
        """Process id of the bubblewrap outside."""
        return self._process.pid

    def _die(self) -> str:
        """Hang up: process 1 ends itself and so all that is in the jail, and bubblewrap reaps it. Else kill."""
        self._control.close()
        try:
            _, said = self._process.communicate(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, said = self._process.communicate(timeout=START_S)
        return said.decode(errors="replace")
