"""A worker's life as a state machine. Pure: events in, state out; whoever finds something out tells it here.

    STARTING --Loaded--> LOADING --Applied--> SERVING <--Announced, Applied--> STALE
        |                   |                    |                               |
        +-------------------+---- Turn(leaving) -+-------------------------------+--> DRAINING --> DRAINED
        `------------------------ Died ----------------------------------------------> DEAD, for good

A worker serves while its applied version is at most `max_lag` behind the newest one it knows of. One that cannot
advance serves until that bound; then it is STALE, takes nothing new, says why, and comes back by itself. A run may go
on after it ended, so a worker that was draining may serve again; a dead one never does: its process ends with an error,
and what it held is delivered to others.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from pipeline.errors import SluiceError
from sluice.v1 import control_pb2

State = control_pb2.WorkerState


class WorkerDied(SluiceError):
    """The engine, or what feeds it, ended by an error: the process must end, its requests uncommitted."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The engine holds its model."""


@dataclass(frozen=True, slots=True)
class Announced:
    """There is such a version: by a manifest, or because a request names it."""

    version: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The engine samples with this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What the loop sees: whether it is to take nothing new for good, and rollouts in work, waiting ones included."""

    leaving: bool
    in_work: int


@dataclass(frozen=True, slots=True)
class Died:
    """Something without which nothing can be sampled has ended; one sentence."""

    reason: str


Event = Loaded | Announced | Applied | Turn | Died


@dataclass(frozen=True, slots=True)
class Standing:
    """A worker's state, why, and what it waits for when it has nothing to do."""

    state: control_pb2.WorkerState
    reason: str
    waits_for: str


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker's state follows from. Versions are None until there is one.

    >>> Worker(max_lag=2).after(Loaded()).after(Applied(3)).after(Announced(5)).standing.waits_for
    'no_requests'
    >>> Worker(max_lag=2).after(Loaded()).after(Applied(2)).after(Announced(5)).standing.reason
    'applied version 2 is 3 behind 5; the bound is 2'
    """

    max_lag: int = 0
    loaded: bool = False
    applied: int | None = None
    newest: int | None = None
    leaving: bool = False
    in_work: int = 0
    died: str = ""

    def after(self, event: Event) -> Worker:
        """The worker once this has happened."""
        match event:
            case Loaded():
                return replace(self, loaded=True)
            case Announced(version):
                return self if self.newest is not None and version <= self.newest else replace(self, newest=version)
            case Applied(version):
                return replace(self, applied=version).after(Announced(version))
            case Turn(leaving, in_work):
                return replace(self, leaving=leaving, in_work=in_work)
            case Died(reason):
                return replace(self, died=self.died or reason)

    @property
    def standing(self) -> Standing:
        """The state that these facts put it in."""
        if self.died:
            return Standing(State.WORKER_STATE_DEAD, self.died, "dead")
        if self.leaving and self.in_work:
            return Standing(State.WORKER_STATE_DRAINING, f"finishes {self.in_work} rollouts", "draining")
        if self.leaving:
            return Standing(State.WORKER_STATE_DRAINED, "", "draining")
        if not self.loaded:
            return Standing(State.WORKER_STATE_STARTING, "the engine loads its model", "no_engine")
        if self.applied is None:
            return Standing(State.WORKER_STATE_LOADING, "no weights have been announced yet", "no_weights")
        if not eligible(self.applied, self.newest, self.max_lag):
            behind = f"applied version {self.applied} is {self.newest - self.applied} behind {self.newest}"
            return Standing(State.WORKER_STATE_STALE, f"{behind}; the bound is {self.max_lag}", "stale")
        return Standing(State.WORKER_STATE_SERVING, "", "no_requests")


class Post:
    """Where a process keeps its worker: several threads tell, any may look."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self._lock = threading.Lock()

    def tell(self, event: Event) -> Standing:
        """This has happened; returns where that leaves the worker."""
        with self._lock:
            self.worker = self.worker.after(event)
            return self.worker.standing


def eligible(applied: int, newest_announced: int | None, max_lag: int) -> bool:
    """Whether new training rollouts may be sampled with these weights.

    >>> eligible(4, 6, 2), eligible(4, 7, 2), eligible(4, None, 0)
    (True, False, True)
    """
    return newest_announced is None or applied >= newest_announced - max_lag
