"""Service processes on one machine: started, watched, restarted, ended.

A process that dies is started again, with a growing pause; one that keeps dying ends the run with its last words.
The processes end when their supervisor does, however it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import SluiceError
from pipeline.rundir import RunDir

STEADY_S = 120.0
"""A process that lived so long has started well; its next death counts as the first."""
RAY_S = 1200.0
"""How long a Ray cluster may take to answer and to give every rank of the learner a place."""
DEATHS = 6
"""Deaths in a row, each before `STEADY_S`, after which the run gives up."""
END_S = 20.0
QUIET = {"PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore::SyntaxWarning", "TQDM_DISABLE": "1"}
"""Libraries keep their progress bars and the warnings of their own sources to themselves."""


class CannotServe(SluiceError):
    """A service process does not stay up."""


@dataclass
class Worker:
    """One service process and its history."""

    service: str
    worker_id: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    restarts: int = 0
    next_start: float = 0.0
    wanted: bool = True


@dataclass
class Processes:
    """The service processes of one run on this machine."""

    dir: RunDir
    threads: dict[str, int] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)

    def start(self, service: str, worker_id: str) -> Worker:
        """Start a worker."""
        worker = self.workers.setdefault(worker_id, Worker(service, worker_id))
        worker.wanted = True
        self._spawn(worker)
        return worker

    def revive(self) -> list[str]:
        """Start again what died; returns one sentence per death. Raises `CannotServe` when one keeps dying."""
        said = []
        for worker in self.workers.values():
            if worker.wanted and worker.process is not None and worker.process.poll() is not None:
                said.append(self._died(worker))
            if worker.wanted and worker.process is None and time.monotonic() >= worker.next_start:
                worker.restarts += 1
                self._spawn(worker)
        return said

    def end(self, service: str | None = None) -> None:
        """Ask processes to finish (SIGTERM), then make them (SIGKILL)."""
        chosen = [w for w in self.workers.values() if service in (None, w.service)]
        for worker in chosen:
            worker.wanted = False
            if worker.process is not None and worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + END_S
        for worker in chosen:
            if worker.process is not None:
                _wait_or_kill(worker.process, max(0.1, deadline - time.monotonic()))

    def log_file(self, worker_id: str) -> Path:
        """Where a worker's words go."""
        return self.dir.folder("logs") / f"{worker_id}.log"

    def last_words(self, worker_id: str, lines: int = 12) -> str:
        """The end of a worker's log."""
        file = self.log_file(worker_id)
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""

    def _spawn(self, worker: Worker) -> None:
        threads = str(self.threads.get(worker.service, 1))
        env = os.environ | QUIET | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        command = [sys.executable, "-m", "pipeline.cli", "serve", worker.service, str(self.dir.path)]
        command += ["--worker-id", worker.worker_id, "--parent", str(os.getpid())]
        with open(self.log_file(worker.worker_id), "ab") as out:
            worker.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, start_new_session=True
            )
        worker.started = time.monotonic()

    def _died(self, worker: Worker) -> str:
        assert worker.process is not None
        code = worker.process.returncode
        lived = time.monotonic() - worker.started
        worker.deaths = 1 if lived > STEADY_S else worker.deaths + 1
        worker.process = None
        worker.next_start = time.monotonic() + min(10.0, 0.2 * 2**worker.deaths)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if worker.deaths >= DEATHS or code == 2:
            raise CannotServe(
                f"{worker.worker_id} does not stay up ({how}); its last words:\n{self.last_words(worker.worker_id)}"
            )
        return f"{worker.worker_id} died ({how}) after {lived:.0f} s; starting it again"


def end_with(parent: int) -> None:
    """End this process when that one, which started it, is gone; to be called in a thread of its own."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


def _wait_or_kill(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5.0)
