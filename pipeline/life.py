"""What a service has been told to do: run, pause, drain, stop. Thread-safe; decides nothing else."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field

from sluice.v1 import control_pb2

Phase = control_pb2.Phase


@dataclass
class Life:
    """What the run wants (`phase`, of the control topic) and what this process was told (`leaving`: SIGTERM, Drain)."""

    phase: int = Phase.PHASE_PAUSED
    paused_here: bool = False
    leaving: bool = False
    reason: str = ""
    left_at: float = math.inf
    """When it was told to leave, on the monotonic clock."""
    _stopped: threading.Event = field(default_factory=threading.Event)

    def hear(self, control: control_pb2.Control) -> None:
        """Follow the run's control record."""
        self.phase, self.reason = control.phase, control.reason

    def pause(self) -> None:
        """Take nothing new here until `resume`."""
        self.paused_here = True

    def resume(self) -> None:
        """Go on here."""
        self.paused_here = False

    def leave(self, reason: str) -> None:
        """Finish what is in flight here, then end the process."""
        self.leaving, self.reason = True, reason
        self.left_at = min(self.left_at, time.monotonic())

    def stop(self) -> None:
        """End the loop now."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """The loop is to end."""
        return self._stopped.is_set()

    @property
    def takes_work(self) -> bool:
        """May new work be taken?"""
        return not (self.paused_here or self.leaving or self.phase in (Phase.PHASE_PAUSED, Phase.PHASE_UNSPECIFIED))

    @property
    def run_ends(self) -> bool:
        """The run drains or has finished: what is in flight is ended."""
        return self.phase in (Phase.PHASE_DRAINING, Phase.PHASE_FINISHED)

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the loop is to end."""
        self._stopped.wait(seconds)
