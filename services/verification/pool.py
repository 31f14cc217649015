"""A pool of worker processes in which a check may hang, crash or eat memory at nobody else's cost.

    callers --run(jobs)--> queue --chunks--> slot threads --pipe--> worker processes (one each, killable)

- A worker says in shared memory which job it is at, so that only the one it hangs or dies on becomes TIMEOUT (it used
  up its CPU limit) or INFRA_ERROR (it did not, and the wall limit passed, or the worker died). The worker is replaced.
- Jobs in one chunk with a slow one go back to the queue after `STALL_S`, and another slot takes them.
- Workers are forked by a fork server, a clean process of its own: never from the service, whose gRPC threads do not
  survive a fork. They import nothing of the service but its checks.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from services.verification import finding, worker
from services.verification.finding import Finding
from services.verification.worker import Job

STALL_S = 0.1
CHUNK_S = 0.02
MAX_CHUNK = 128
GRACE_S = 60.0
_CPU_SIGNALS = (-signal.SIGPROF, -signal.SIGXCPU)


@dataclass(eq=False)
class _Task:
    job: Job
    found: Future[Finding] = field(default_factory=Future)

    def settle(self, found: Finding) -> None:
        """The first finding counts; a task that was handed on may be finished twice."""
        with suppress(InvalidStateError):
            self.found.set_result(found)


class Pool:
    """Worker processes, as many as cores but at least 2. `memory_mb`: by how much each may grow. Thread-safe."""

    def __init__(self, workers: int = 0, memory_mb: int = 512) -> None:
        self.workers = workers or max(2, os.cpu_count() or 1)
        self._memory_mb = memory_mb
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(worker.PRELOAD))
        self._queue: deque[_Task] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._slots = [_Slot(self, self._start_worker) for _ in range(self.workers)]

    def run(self, jobs: Sequence[Job]) -> list[Finding]:
        """Findings in the order of the jobs. Waits no longer than the jobs' own limits, one after the other, allow."""
        tasks = [_Task(job) for job in jobs]
        with self._wake:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._queue.extend(tasks)
            self._wake.notify_all()
        deadline = time.monotonic() + GRACE_S + sum(job.wall_s for job in jobs)
        return [self._await(task, deadline) for task in tasks]

    def warm(self) -> Finding:
        """Start the fork server and a worker now, which takes seconds, and see that they work."""
        return self.run([Job("{}", "1", "exact", "1", "", wall_s=60.0)])[0]

    def close(self) -> None:
        """End the workers, also in the middle of a job."""
        with self._wake:
            self._closed = True
            for task in self._queue:
                task.settle(finding.infra_error("worker_died", "the pool was closed"))
            self._queue.clear()
            self._wake.notify_all()
        for slot in self._slots:
            slot.end()

    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [pid for slot in self._slots if (pid := slot.pid) is not None]

    def take(self, most: int) -> list[_Task]:
        """For a slot: the next tasks, a fair share and at most `most`; empty when the pool is closed."""
        with self._wake:
            while not self._closed:
                share = min(most, -(-len(self._queue) // self.workers))
                popped = (self._queue.popleft() for _ in range(share))
                if tasks := [task for task in popped if not task.found.done()]:
                    return tasks
                if not self._queue:
                    self._wake.wait(timeout=1.0)
        return []

    def give_back(self, tasks: Sequence[_Task]) -> None:
        """For a slot: tasks that another should take, before all others."""
        with self._wake:
            self._queue.extendleft(reversed([task for task in tasks if not task.found.done()]))
            self._wake.notify_all()

    @staticmethod
    def _await(task: _Task, deadline: float) -> Finding:
        try:
            return task.found.result(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            task.settle(finding.infra_error("pool_stuck", "no worker answered in time"))
            return task.found.result(timeout=0)

    def _start_worker(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        at = self._context.RawValue("i", 0)
        process = self._context.Process(target=worker.serve, args=(theirs, at, self._memory_mb), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, at)


class _Worker:
    """A worker process, from outside."""

    def __init__(self, process: BaseProcess, pipe: Connection, at: Any) -> None:
        self.process, self.pipe, self._at = process, pipe, at

    @property
    def at(self) -> int:
        """Which job of its chunk it is doing."""
        return self._at.value

    def send(self, tasks: list[_Task]) -> None:
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


class _Slot:
    """A thread that owns one worker at a time, starts it when there is work and replaces it when it is lost."""

    def __init__(self, pool: Pool, start: Callable[[], _Worker]) -> None:
        self._pool, self._start = pool, start
        self._worker: _Worker | None = None
        self._job_s = 0.001
        self._thread = threading.Thread(target=self._live, name="verification-slot", daemon=True)
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
        while tasks := self._pool.take(max(1, min(MAX_CHUNK, int(CHUNK_S / self._job_s)))):
            self._work_off(tasks)
        if self._worker:
            self._worker.end()

    def _work_off(self, tasks: list[_Task]) -> None:
        """Have a chunk checked. When the worker is lost over one, the others go back to the queue."""
        done = 0
        started = time.monotonic()
        try:
            self._worker = self._worker or self._start()
            self._worker.send(tasks)
            while done < len(tasks):
                found = self._await(self._worker, tasks, done)
                for task, one in zip(tasks[done:], found, strict=False):
                    task.settle(one)
                    self._job_s = 0.95 * self._job_s + 0.05 * max(1e-5, one.wall_s)
                done += len(found)
        except (OSError, EOFError, ValueError, _WallLimit) as error:
            self._bury(tasks, done, error, time.monotonic() - started)

    def _await(self, current: _Worker, tasks: list[_Task], done: int) -> list[Finding]:
        """The next findings. After a stall the other tasks are handed on. Raises `_WallLimit`."""
        at, since = current.at, time.monotonic()
        handed_on = False
        while not (found := current.receive(STALL_S)):
            if current.at != at:
                at, since = current.at, time.monotonic()
                continue
            if not handed_on:
                self._pool.give_back([task for task in tasks[done:] if task is not tasks[at]])
                handed_on = True
            if time.monotonic() - since > tasks[at].job.wall_s:
                raise _WallLimit
        return found

    def _bury(self, tasks: list[_Task], done: int, error: Exception, took_s: float) -> None:
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
    if exit_code in _CPU_SIGNALS:
        return finding.timeout("cpu_limit", job.cpu_s, f"used up {job.cpu_s} s of CPU")
    return finding.infra_error("worker_died", f"{type(error).__name__}; the worker's exit code was {exit_code}")
