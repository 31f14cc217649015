"""Several engines behind one: jobs go to the least busy, weights to all, one after the other.

    submit --> the live replica with the most room --> collected by a thread each --> finished
    apply  --> replica 0, then 1, ...: while one takes the weights, the others sample

Every replica stamps its own version. What a dead one held is sampled afresh by the others, from the same seeds; nothing
of it had come out. When none is left, the whole is dead.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from services.generation.engine.api import Completion, Engine, EngineDied, Job, Partial

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

COLLECT_S = 0.1


class Replicas:
    """See `engine.api.Engine`. `engines`: at least one, all of one model, none of them used by anybody else."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = list(engines)
        self.name, self.max_len, self.kv_shared = engines[0].name, engines[0].max_len, engines[0].kv_shared
        self._errors: dict[int, EngineDied] = {}
        self._jobs: dict[str, tuple[Job, int]] = {}
        self._out: SimpleQueue[Completion | None] = SimpleQueue()  # None: whoever waits is to look again
        self._partials: list[Partial] = []
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._collect, args=(i,), daemon=True) for i in range(len(engines))]
        for thread in self._threads:
            thread.start()

    @property
    def version(self) -> int:
        """The oldest version that is sampled with."""
        return min(self.engines[i].version for i in self._live() or range(len(self.engines)))

    @property
    def replicas(self) -> int:
        """Engines that live."""
        return len(self._live())

    def submit(self, job: Job) -> None:
        """See `Engine`."""
        with self._lock:
            while True:
                index = self._roomiest()
                self._jobs[job.id] = (job, index)
                try:
                    self.engines[index].submit(job)
                    return
                except EngineDied as error:
                    del self._jobs[job.id]
                    self._bury(index, error)

    def abort(self, ids: Collection[str], reason: str = "aborted") -> None:
        """See `Engine`."""
        with self._lock:
            mine: dict[int, list[str]] = {}
            for one in ids:
                if one in self._jobs:
                    mine.setdefault(self._jobs[one][1], []).append(one)
            for index, some in mine.items():
                self.engines[index].abort(some, reason)

    def partials(self) -> list[Partial]:
        """See `Engine`."""
        with self._lock:
            found, self._partials = self._partials, []
        return found

    def finished(self, timeout: float) -> list[Completion]:
        """See `Engine`."""
        found: list[Completion | None] = []
        try:
            found.append(self._out.get(timeout=timeout) if timeout > 0 else self._out.get_nowait())
            while True:
                found.append(self._out.get_nowait())
        except Empty:
            pass
        said = [one for one in found if one is not None]
        if not said:
            self._check()
        return said

    def apply(
        self,
        version: int,
        tensors: Mapping[str, torch.Tensor],
        changed: Mapping[str, torch.Tensor | None] | None = None,
        given: MutableMapping[str, torch.Tensor] | None = None,
    ) -> float:
        """See `Engine`. Returns the longest stop of a replica. Nothing is exchanged: each has memory of its own."""
        base, still_s = self.version, 0.0
        for index in self._live():
            engine = self.engines[index]
            try:
                still_s = max(still_s, engine.apply(version, tensors, changed if engine.version == base else None))
            except EngineDied as error:
                self._bury(index, error)
        self._check()
        return still_s

    def running(self) -> int:
        """See `Engine`."""
        return len(self._jobs)

    def capacity(self) -> int:
        """See `Engine`: of those that live."""
        return sum(self.engines[i].capacity() for i in self._live())

    def kv_use(self) -> float:
        """See `Engine`: of the fullest."""
        return max((self.engines[i].kv_use() for i in self._live()), default=0.0)

    def preempted(self) -> int:
        """See `Engine`: by all."""
        return sum(engine.preempted() for engine in self.engines)

    def busy_s(self) -> float:
        """See `Engine`: on the average."""
        return sum(engine.busy_s() for engine in self.engines) / len(self.engines)

    def close(self) -> None:
        """See `Engine`."""
        self._closing.set()
        for thread in self._threads:
            thread.join(5.0)
        for engine in self.engines:
            engine.close()

    def _live(self) -> list[int]:
        return [i for i in range(len(self.engines)) if i not in self._errors]

    def _roomiest(self) -> int:
        self._check()
        return max(self._live(), key=lambda i: self.engines[i].capacity() - self.engines[i].running())

    def _check(self) -> None:
        if len(self._errors) == len(self.engines):
            raise EngineDied("; ".join(f"replica {i}: {error}" for i, error in sorted(self._errors.items())))

    def _collect(self, index: int) -> None:
        while not self._closing.is_set() and index not in self._errors:
            try:
                found = self.engines[index].finished(COLLECT_S)
            except EngineDied as error:
                self._bury(index, error)
                return
            if shown := self.engines[index].partials():
                with self._lock:
                    self._partials += shown
                self._out.put(None)
            for one in found:
                with self._lock:
                    mine = self._jobs.get(one.id, (None, -1))[1] == index
                    if mine:  # what was handed to another when this one was given up is the other's
                        del self._jobs[one.id]
                if mine:
                    self._out.put(one)

    def _bury(self, index: int, error: EngineDied) -> None:
        """Give a replica up, and what it held to the others."""
        with self._lock:
            if index in self._errors:
                return
            self._errors[index] = error
            log.error("replica %d of %d died: %s", index, len(self.engines), error)
            held = [job for job, where in self._jobs.values() if where == index]
            with contextlib.suppress(EngineDied):  # none is left: `finished` says so
                for job in held:
                    self.submit(job)
        self._out.put(None)
