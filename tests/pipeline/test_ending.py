"""A command that is told to end while it waits ends at once, also where it is a container's first process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
SLUICE = [sys.executable, "-W", "ignore", "-m", "pipeline.cli"]
FIRST = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
"""Runs what follows as process 1: a signal that it has no handler for does nothing to it."""
ENDED, SOON_S = 143, 5.0


def namespaces() -> bool:
    """Does this machine let anybody have them?"""
    return shutil.which("unshare") is not None and not subprocess.run([*FIRST, "true"], capture_output=True).returncode


@pytest.fixture
def started():
    """Starts a command; kills what is left of it."""
    processes = []

    def start(*command: str, **environment: str) -> subprocess.Popen[str]:
        env = os.environ | {"PYTHONUNBUFFERED": "1"} | environment
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True))
        return processes[-1]

    yield start
    for process in processes:
        for one in [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else []:
            one.kill()
        process.communicate()


def run_file(folder: Path, text: str) -> str:
    (folder / "run.yaml").write_text(f"run: demo\n{text}\n")
    return str(folder / "run.yaml")


def ended(process: subprocess.Popen[str], told: psutil.Process) -> None:
    begun = time.monotonic()
    told.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begun < SOON_S
    assert (process.returncode, said) == (ENDED, "")


@pytest.fixture
def silent():
    """A server that takes connections and says nothing: a Kafka, a hub."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(100)
        yield server


def port(server: socket.socket) -> int:
    return server.getsockname()[1]


@pytest.mark.parametrize("command", ["prepare", "start"])
def test_a_command_that_waits_for_kafka_ends_when_it_is_told_to_though_it_is_process_1(
    started, silent, tmp_path, command
):
    first = FIRST if namespaces() else []
    file = run_file(tmp_path, f"log: kafka://127.0.0.1:{port(silent)}")
    where = ["--dir", str(tmp_path / "dir")] if command == "prepare" else []
    process = started(*first, *SLUICE, command, file, *where)
    with silent.accept()[0]:
        told = psutil.Process(process.pid)
        ended(process, told.children()[0] if first else told)


def test_a_model_that_is_being_downloaded_is_left_when_the_command_is_told_to_end(started, silent, tmp_path):
    data = "data: {sources: [{kind: reasoning_gym, name: spell_backward, size: 20}], held_out: 4}"
    file = run_file(tmp_path, f"{data}\nmodel: {{source: nobody/nothing}}")
    hub = {"HF_ENDPOINT": f"http://127.0.0.1:{port(silent)}", "HF_HOME": str(tmp_path / "hub")}
    process = started(*SLUICE, "prepare", file, "--dir", str(tmp_path / "dir"), "--model", "cold", **hub)
    with silent.accept()[0]:
        told = psutil.Process(process.pid)
        downloads = told.children(recursive=True)
        assert downloads
        ended(process, told)
    assert not [one for one in downloads if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
