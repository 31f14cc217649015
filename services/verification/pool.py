"""A pool of worker processes in which a check may hang, crash or eat memory at nobody else's cost.

    callers --run(jobs)--> queue --chunks--> slots, a thread each --pipe--> worker processes, killable

- Only the job that a worker hangs or dies on becomes TIMEOUT (it used up its CPU limit) or INFRA_ERROR (it did not, and
  the wall limit passed, or the worker died): `slot.py`.
- As many slots work at a time as there are workers; one whose job waits without using a CPU does not count, and another
  takes its place meanwhile. So programs that only sleep cost no throughput.
- Workers are forked by a fork server, a clean process of its own: never from the service, whose gRPC threads do not
  survive a fork. They import nothing of the service but its checks.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import UserError
from services.verification import finding, worker
from services.verification.finding import Finding
from services.verification.slot import START_S, Slot, Task, WorkerProcess
from services.verification.worker import Job

GRACE_S = 60.0
PARKED_S = 5.0
"""A slot that was opened for a while is closed when it has had nothing to do for so long."""


CPUS = "SLUICE_CPUS"
"""The cores that a container asked for, where it has no quota: without it, each of a node's would get a worker."""
A_WORKER_BYTES = 64 << 20
"""Of a container's limit, for each worker. One that has checked mathematics holds 16 MiB of its own: the rest is for
the service, for the fork server (25 MiB) and for checks that grow. Not the 512 MiB by which a check may: that is for
one that runs wild, and a limit of 2 GiB would then allow four workers."""


def cores(cgroup: Path = Path("/sys/fs/cgroup"), environment: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use, at least 1: `SLUICE_CPUS` of them, or its affinity.

    No more than a container's quota, and no more than its memory has room for a worker each (cgroup v2).
    Raises `UserError`.
    """
    quota, period = _limit(cgroup / "cpu.max")
    memory, _ = _limit(cgroup / "memory.max")
    bounds = [quota // period] if quota else []
    bounds += [memory // A_WORKER_BYTES] if memory else []
    return max(1, min([_told(environment) or _here(), *bounds]))


def _told(environment: Mapping[str, str]) -> int:
    told = environment.get(CPUS, "")
    if told and not (told.isascii() and told.isdigit() and int(told)):
        raise UserError(f"{CPUS} is {told!r}; accepted: a whole number of cores, 1 or more")
    return int(told or 0)


def _here() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limit(file: Path) -> tuple[int, int]:
    """A cgroup's limit, and the period that it is for; 0 where there is none."""
    most, _, period = file.read_text().strip().partition(" ") if file.is_file() else ("max", "", "")
    return (0, 1) if most == "max" else (int(most), int(period or 1))


class Pool:
    """Worker processes: `workers` at work at a time; 0 means one more than `cores()`. Thread-safe.

    One more, since a worker waits for its jails now and then, and holds its place until a job is seen to sleep.

    `memory_mb`: by how much each may grow. `waiting`: how many more there may be while jobs wait.
    """

    def __init__(self, workers: int = 0, memory_mb: int = 512, waiting: int = 64) -> None:
        self.workers = workers or cores() + 1
        self._memory_mb, self._most_slots = memory_mb, self.workers + waiting
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(worker.PRELOAD))
        self._queue: deque[Task] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._busy = self._parked = 0
        self._slots: list[Slot] = []
        with self._wake:
            for _ in range(self.workers):
                self._open_slot()

    def run(self, jobs: Sequence[Job]) -> list[Finding]:
        """Findings in the order of the jobs. Waits no longer than the jobs' own limits, one after the other, allow."""
        tasks = [Task(job) for job in jobs]
        with self._wake:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._queue.extend(tasks)
            self._wake.notify_all()
        deadline = time.monotonic() + START_S + GRACE_S + sum(job.wall_s for job in jobs)
        return [self._await(task, deadline) for task in tasks]

    def warm(self) -> Finding:
        """Start the fork server and a worker now, which takes seconds, and see that they work."""
        return self.run([Job("{}", "1", "exact", "1", "")])[0]

    def close(self) -> None:
        """End the workers, also in the middle of a job."""
        with self._wake:
            self._closed = True
            for task in self._queue:
                task.settle(finding.infra_error("worker_died", "the pool was closed"))
            self._queue.clear()
            slots = list(self._slots)
            self._wake.notify_all()
        for slot in slots:
            slot.end()

    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [pid for slot in list(self._slots) if (pid := slot.pid) is not None]

    def take(self, slot: Slot, most: int) -> list[Task]:
        """For a slot: the next tasks, a fair share and at most `most`; it is busy then. Empty when it has to end."""
        parked = time.monotonic()
        with self._wake:
            while not self._closed:
                if self._busy < self.workers and (tasks := self._next(most)):
                    self._busy += 1
                    return tasks
                if len(self._slots) > self.workers and time.monotonic() - parked > PARKED_S:
                    break
                self._parked += 1
                self._wake.wait(timeout=1.0)
                self._parked -= 1
            self._slots.remove(slot)
        return []

    def give_back(self, tasks: Sequence[Task]) -> None:
        """For a slot: tasks that another should take, before all others."""
        with self._wake:
            self._queue.extendleft(reversed([task for task in tasks if not task.found.done()]))
            self._wake.notify_all()

    def done(self) -> None:
        """For a slot: it is no longer busy."""
        with self._wake:
            self._busy -= 1
            self._wake.notify_all()

    def waits(self, begins: bool) -> None:
        """For a busy slot: its job begins or ceases to wait without using a CPU; another slot may work meanwhile."""
        with self._wake:
            self._busy += -1 if begins else 1
            too_few = self._busy + self._parked < self.workers
            if begins and too_few and len(self._slots) < self._most_slots and not self._closed:
                self._open_slot()
            self._wake.notify_all()

    def _next(self, most: int) -> list[Task]:
        while self._queue:
            share = min(most, -(-len(self._queue) // self.workers))
            popped = [self._queue.popleft() for _ in range(share)]
            if tasks := [task for task in popped if not task.found.done()]:
                return tasks
        return []

    @staticmethod
    def _await(task: Task, deadline: float) -> Finding:
        try:
            return task.found.result(timeout=max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            task.settle(finding.infra_error("pool_stuck", "no worker answered in time"))
            return task.found.result(timeout=0)

    def _open_slot(self) -> None:
        slot = Slot(self, self._start_worker)
        self._slots.append(slot)
        slot.start()

    def _start_worker(self) -> WorkerProcess:
        ours, theirs = self._context.Pipe()
        at = self._context.RawValue("i", 0)
        process = self._context.Process(target=worker.serve, args=(theirs, at, self._memory_mb), daemon=True)
        process.start()
        theirs.close()
        started = WorkerProcess(process, ours, at)
        started.await_ready()
        return started
