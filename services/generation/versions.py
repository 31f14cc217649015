"""Weights into the engine, and who holds the applied version; what is applied and announced is told to the worker.

A hold keeps the engine on its version for a while, so that an evaluation is of one policy. It ends when it is released
or its time is over; newer weights wait until then.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from services.generation.engine.api import Engine
from services.generation.fleet import Announced, Applied, Post, Worker

if TYPE_CHECKING:
    import torch

LONGEST_HOLD_S = 3600.0


class Versions:
    """Thread-safe. `max_lag`: how many versions behind the newest one a worker may serve."""

    def __init__(self, engine: Engine, max_lag: int) -> None:
        self.engine, self.max_lag = engine, max_lag
        self.post = Post(Worker(max_lag=max_lag, loaded=True))
        self._holds: dict[str, float] = {}
        self._lock = threading.RLock()

    @property
    def applied(self) -> int | None:
        """Version that this process applied; None before the first."""
        return self.post.worker.applied

    @property
    def newest(self) -> int | None:
        """Newest version it knows of: announced, or named by a request."""
        return self.post.worker.newest

    @property
    def lag(self) -> int:
        """How many versions behind the newest it knows of it samples; 0 before it knows of any."""
        return max(0, (self.newest or 0) - (self.applied or 0))

    def heard(self, version: int) -> None:
        """There is such a version."""
        self.post.tell(Announced(version))

    def apply(
        self,
        version: int,
        tensors: Mapping[str, torch.Tensor],
        changed: Mapping[str, torch.Tensor | None] | None = None,
        given: MutableMapping[str, torch.Tensor] | None = None,
    ) -> float | None:
        """Apply weights, see `Engine`. Returns the seconds that generation stood still; None when a hold forbids it."""
        with self._lock:
            if self.held:
                return None
            still_s = self.engine.apply(version, tensors, changed, given)
            self.post.tell(Applied(version))
            return still_s

    @property
    def held(self) -> bool:
        """Is there a hold?"""
        with self._lock:
            now = time.monotonic()
            self._holds = {hold: until for hold, until in self._holds.items() if until > now}
            return bool(self._holds)

    @property
    def held_back(self) -> bool:
        """Is a hold keeping the engine from a newer version? What is sampled now would be older than it need be."""
        return self.held and self.applied is not None and self.newest is not None and self.newest > self.applied

    def hold(self, version: int | None, seconds: float) -> tuple[str, int]:
        """Hold the applied version, which must be `version` where one is named: (hold id, held version)."""
        if not 0 < seconds <= LONGEST_HOLD_S:
            raise UserError(f"a hold of {seconds:g} s; accepted: more than 0, up to {LONGEST_HOLD_S:g}")
        with self._lock:
            if version is not None and version != self.engine.version:
                raise UserError(f"version {version} is not applied; the applied one is {self.engine.version}")
            hold_id = secrets.token_hex(8)
            self._holds[hold_id] = time.monotonic() + seconds
            return hold_id, self.engine.version

    def release(self, hold_id: str) -> None:
        """End a hold; one that is over already is no matter."""
        with self._lock:
            self._holds.pop(hold_id, None)
