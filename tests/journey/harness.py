"""Starts the real `sluice run` in a process of its own and asks the real `sluice` what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pipeline.rundir import RunDir
from pipeline.view import View, Watcher

ROOT = Path(__file__).parents[2]
SMALL = Path(__file__).parent / "small.yaml"
RUN_S = 240.0


def sluice(*arguments: str, env: dict[str, str] | None = None, timeout: float = RUN_S) -> subprocess.CompletedProcess:
    """Run one command to its end."""
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | (env or {}), capture_output=True, text=True, timeout=timeout
    )


def audit(directory: Path) -> dict[str, Any]:
    """The account of a run; fails with it when it is not clean."""
    done = sluice("audit", str(directory), "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def summary(directory: Path) -> dict[str, Any]:
    """What the run wrote at its end."""
    return json.loads((directory / "summary.json").read_text())


@dataclass
class Running:
    """A `sluice run` in progress, with a view of it."""

    directory: Path
    sets: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    file: Path = SMALL

    def __enter__(self) -> Running:
        command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "run", str(self.file), "--plain"]
        command += ["--dir", str(self.directory)]
        for name, value in self.sets.items():
            command += ["--set", f"{name}={json.dumps(value)}"]
        self.out = open(self.directory.parent / f"{self.directory.name}.out", "a+")
        env = os.environ | {"SLUICE_FAILPOINT_DIR": str(self.directory.parent)} | self.env
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=self.out, stderr=self.out, env=env)
        self._watcher: Watcher | None = None
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        if self._watcher is not None:
            self._watcher.close()
            self._log.close()
        self.out.close()

    def said(self) -> str:
        """Everything it has printed."""
        self.out.flush()
        return Path(self.out.name).read_text()

    def wait(self, seconds: float = RUN_S) -> int:
        """Until it ends; its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run did not end in {seconds} s:\n{self.said()[-3000:]}{self.logs()}") from None

    def until(self, condition: Callable[[View], bool], what: str, seconds: float = RUN_S) -> View:
        """Until the run looks so."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the run ended before {what}:\n{self.said()[-3000:]}{self.logs()}"
            view = self.look()
            if view is not None and condition(view):
                return view
            time.sleep(0.1)
        raise AssertionError(f"{what} did not happen in {seconds} s:\n{self.said()[-3000:]}{self.logs()}")

    def look(self) -> View | None:
        """The run's view; None before it has topics."""
        if self._watcher is None:
            if not (self.directory / "base").exists():
                return None
            run = RunDir.of(self.directory)
            self._log = run.open_log()
            self._watcher = Watcher(self._log, run.names())
        return self._watcher.look(0.05)

    @contextlib.contextmanager
    def joined(self, service: str, worker_id: str) -> Iterator[subprocess.Popen]:
        """A worker that nobody supervises, as on a machine of its own; its log is among the run's."""
        command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "serve", service, str(self.directory)]
        with open(self.directory / "logs" / f"{worker_id}.log", "a") as out:
            process = subprocess.Popen([*command, "--worker-id", worker_id], cwd=ROOT, stdout=out, stderr=out)
            try:
                yield process
            finally:
                process.kill()
                process.wait(10)

    def kill(self, worker_id: str, how: int = signal.SIGKILL) -> None:
        """Send a signal to a service process; SIGKILL: and wait until it is dead, or the next signal may meet it."""
        process = psutil.Process(self.pid(worker_id))
        process.send_signal(how)
        with contextlib.suppress(psutil.NoSuchProcess):
            while how == signal.SIGKILL and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)

    def pid(self, worker_id: str) -> int:
        """The process of a worker; of one that has just died, the next."""
        deadline = time.monotonic() + 30
        while True:
            command = ["pgrep", "-f", f"{self.directory}.* --worker-id {worker_id} "]
            pids = subprocess.run(command, capture_output=True, text=True).stdout.split()
            if pids or time.monotonic() > deadline:
                assert len(pids) == 1, f"{worker_id}: {pids}"
                return int(pids[0])
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of the services' logs."""
        files = sorted((self.directory / "logs").glob("*.log"))
        return "".join(f"\n== {file.name}\n{file.read_text()[-1500:]}" for file in files)
