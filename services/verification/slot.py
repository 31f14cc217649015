"""A thread that owns one worker process at a time, starts it when there is work and replaces it when it is lost.

The worker says in shared memory which job it is at, so that only the one it hangs or dies on is buried with it. Jobs in
one chunk with a slow one go back to the queue after `STALL_S`, and another slot takes them.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from services.verification import finding, worker
from services.verification.finding import Finding
from services.verification.watch import Watch
from services.verification.worker import Job

START_S = 300.0
LOOK_S = 0.03
"""How often a slot looks at a job that takes longer than that."""
STALL_S = 0.1
CHUNK_S = 0.02
MAX_CHUNK = 128
_CPU_SIGNALS = (-signal.SIGPROF, -signal.SIGXCPU)


@dataclass(eq=False)
class Task:
    """A job, and what will be found."""

    job: Job
    found: Future[Finding] = field(default_factory=Future)

    def settle(self, found: Finding) -> None:
        """The first finding counts; a task that was handed on may be finished twice."""
        with suppress(InvalidStateError):
            self.found.set_result(found)


class Desk(Protocol):
    """Where a slot's tasks come from: the pool."""

    def take(self, slot: Slot, most: int) -> list[Task]: ...
    def give_back(self, tasks: Sequence[Task]) -> None: ...
    def done(self) -> None: ...
    def waits(self, begins: bool) -> None: ...


class WorkerNotReady(Exception):
    """A worker process that could not be started."""


class WorkerProcess:
    """A worker process, from outside."""

    def __init__(self, process: BaseProcess, pipe: Connection, at: Any) -> None:
        self.process, self.pipe, self._at = process, pipe, at

    def await_ready(self) -> None:
        """Until it takes jobs: the first waits for the fork server's imports. Raises `WorkerNotReady`."""
        try:
            if self.pipe.poll(START_S) and self.pipe.recv_bytes() == worker.READY:
                return
        except (OSError, EOFError) as error:
            raise WorkerNotReady(f"the worker ended at its start, exit code {self.end()}") from error
        self.end()
        raise WorkerNotReady(f"the worker was not ready after {START_S} s")

    @property
    def at(self) -> int:
        """Which job of its chunk it is doing."""
        return self._at.value

    def send(self, tasks: list[Task]) -> None:
        """Hand over a chunk."""
        self._at.value = 0
        self.pipe.send_bytes(worker.encode([task.job for task in tasks]))

    def receive(self, timeout: float) -> list[Finding]:
        """Its next findings; none when it takes longer. Raises `EOFError` or `OSError` when it is dead."""
        return finding.decode(self.pipe.recv_bytes()) if self.pipe.poll(timeout) else []

    def end(self) -> int:
        """Kill it; its exit code."""
        self.pipe.close()
        self.process.join(timeout=0.2)
        if self.process.is_alive():
            self.process.kill()
        self.process.join(timeout=5.0)
        return self.process.exitcode or 0


class Slot:
    """One thread and its worker, between the pool's queue and the tasks' findings."""

    def __init__(self, pool: Desk, start_worker: Callable[[], WorkerProcess]) -> None:
        self._pool, self._start_worker = pool, start_worker
        self._worker: WorkerProcess | None = None
        self._job_s = CHUNK_S
        self._waits = False
        self._thread = threading.Thread(target=self._live, name="verification-slot", daemon=True)

    def start(self) -> None:
        """Begin to take tasks."""
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process id of its worker; None when it has none."""
        current = self._worker
        return current.process.pid if current else None

    def end(self) -> None:
        """Kill its worker and wait for the thread."""
        current = self._worker
        if current is not None and current.process.is_alive():
            current.process.kill()
        self._thread.join(timeout=10.0)

    def _live(self) -> None:
        while tasks := self._pool.take(self, max(1, min(MAX_CHUNK, int(CHUNK_S / self._job_s)))):
            self._work_off(tasks)
            self._wait(False)
            self._pool.done()
        if self._worker:
            self._worker.end()

    def _work_off(self, tasks: list[Task]) -> None:
        """Have a chunk checked. When the worker is lost over one, the others go back to the queue."""
        done = 0
        started = time.monotonic()
        try:
            self._worker = self._worker or self._start_worker()
            self._worker.send(tasks)
            while done < len(tasks):
                found = self._await(self._worker, tasks, done)
                for task, one in zip(tasks[done:], found, strict=False):
                    task.settle(one)
                    self._job_s = 0.95 * self._job_s + 0.05 * max(1e-5, one.wall_s)
                done += len(found)
        except (OSError, EOFError, ValueError, RuntimeError, WorkerNotReady, _WallLimit) as error:
            self._bury(tasks, done, error, time.monotonic() - started)

    def _await(self, current: WorkerProcess, tasks: list[Task], done: int) -> list[Finding]:
        """The next findings. After a stall the other tasks are handed on. Raises `_WallLimit`."""
        at, since = current.at, time.monotonic()
        handed_on, watch = False, None
        while not (found := current.receive(watch.pause_s if self._waits and watch else LOOK_S)):
            if current.at != at:
                at, since, watch = current.at, time.monotonic(), None
                self._wait(False)
                continue
            if not handed_on and time.monotonic() - since > STALL_S:
                self._pool.give_back([task for task in tasks[done:] if task is not tasks[at]])
                handed_on = True
            watch = watch or Watch(current.process.pid or 0)
            self._wait(watch.waits())
            if time.monotonic() - since > tasks[at].job.wall_s:
                raise _WallLimit
        self._wait(False)
        return found

    def _wait(self, begins: bool) -> None:
        """Tell the pool, where it changes, that the job uses no CPU, or uses one again."""
        if begins != self._waits:
            self._waits = begins
            self._pool.waits(begins)

    def _bury(self, tasks: list[Task], done: int, error: Exception, took_s: float) -> None:
        """Settle the job that the worker was lost over; give the others back."""
        lost, self._worker = self._worker, None
        at = max(done, lost.at) if lost else done
        exit_code = lost.end() if lost else 0
        tasks[at].settle(_verdict_of_death(tasks[at].job, error, exit_code).took(took_s))
        self._pool.give_back(tasks[done:])


class _WallLimit(Exception):
    """A job took longer than it may."""


def _verdict_of_death(job: Job, error: Exception, exit_code: int) -> Finding:
    if isinstance(error, _WallLimit):
        return finding.infra_error("wall_limit", f"no answer in {job.wall_s} s, and the CPU limit was not used up")
    if isinstance(error, WorkerNotReady):
        return finding.infra_error("worker_start", str(error))
    if exit_code in _CPU_SIGNALS:
        return finding.timeout("cpu_limit", job.cpu_s, f"used up {job.cpu_s} s of CPU")
    return finding.infra_error("worker_died", f"{type(error).__name__} {str(error)[:200]}; exit code {exit_code}")
