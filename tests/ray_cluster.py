"""A real Ray cluster of one node on this machine, with a client door; gone with the test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.ports import free_ports

ROOT = Path(__file__).parents[1]
START_S, END_S = 120.0, 30.0
LITTLE = 80_000_000
"""Bytes of its object store: nothing that is trained on goes through it."""


@contextlib.contextmanager
def ray_cluster(cpus: int) -> Iterator[str]:
    """Its address, `ray://127.0.0.1:PORT`. Its nodes have this many CPUs and no GPU."""
    folder = tempfile.mkdtemp(prefix="sluice-ray-", dir="/tmp")  # sockets lie in it, whose paths must be short
    gcs, door, dashboard = free_ports(3)
    command = [
        *(Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *("--node-ip-address=127.0.0.1", f"--port={gcs}", f"--ray-client-server-port={door}"),
        *(f"--num-cpus={cpus}", "--num-gpus=0", f"--object-store-memory={LITTLE}", f"--temp-dir={folder}"),
        *("--include-dashboard=false", f"--dashboard-port={dashboard}", "--min-worker-port=0", "--max-worker-port=0"),
    ]
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/proto", "OMP_NUM_THREADS": "1"}
    with open(Path(folder, "said"), "w+") as said:
        head = subprocess.Popen(list(map(str, command)), env=env, stdout=said, stderr=said, cwd=folder)
        try:
            _await(head, door, Path(folder, "said"))
            yield f"ray://127.0.0.1:{door}"
        finally:
            _end(head)
            shutil.rmtree(folder, ignore_errors=True)


def workers(task: str) -> list[psutil.Process]:
    """The processes in which a cluster runs this task now."""
    return [one for one in psutil.process_iter(["cmdline"]) if f"ray::{task}" in " ".join(one.info["cmdline"] or [])]


def _await(head: subprocess.Popen[bytes], door: int, said: Path) -> None:
    deadline = time.monotonic() + START_S
    while not any(one.laddr.port == door for one in _listening(head.pid)):
        assert head.poll() is None and time.monotonic() < deadline, said.read_text()
        time.sleep(0.2)


def _listening(pid: int) -> list[psutil._common.pconn]:
    found = []
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    return found


def _end(head: subprocess.Popen[bytes]) -> None:
    """Its processes too, however many it has left behind."""
    all_of_it = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
    head.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(END_S)
    head.kill()
    for process in psutil.wait_procs(all_of_it, timeout=5.0)[1]:
        process.kill()
