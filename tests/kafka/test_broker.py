"""What `make kafka` says of a broker that runs already; no Java and no Kafka is needed for it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

BROKER = Path(__file__).parent / "broker"
PORT = 19592


@pytest.fixture
def start(tmp_path):
    """Starts a copy of the script beside a "broker" that runs: this process."""
    script = tmp_path / "tests" / "kafka" / "broker"
    script.parent.mkdir(parents=True)
    shutil.copy(BROKER, script)
    home = tmp_path / ".kafka" / "run" / str(PORT)
    home.mkdir(parents=True)
    (home / "pid").write_text(str(os.getpid()))
    (home / "broker.log").write_text("Kafka Server started")
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\n")
    java.chmod(0o755)

    def started(served: str, host: str) -> subprocess.CompletedProcess[str]:
        (home / "server.properties").write_text(f"listeners=PLAINTEXT://127.0.0.1:{PORT}{served}\n")
        found = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "KAFKA_PORT": str(PORT), "KAFKA_HOST": host}
        command = [sys.executable, str(script), "start"]
        return subprocess.run(command, env=os.environ | found, capture_output=True, text=True, timeout=60)

    return started


@pytest.mark.parametrize("served", ["", f",OUTSIDE://10.0.0.1:{PORT + 2}", f",OUTSIDE://10.0.0.99:{PORT + 2}"])
def test_an_address_that_the_running_broker_does_not_serve_is_refused_not_printed(start, served):
    done = start(served, "10.0.0.9")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "kafka: a broker that does not listen on 10.0.0.9 runs; `make kafka-stop` first\n"


def test_a_broker_that_serves_the_address_is_as_good_as_a_new_one(start):
    with socket.create_server(("127.0.0.1", PORT)):
        done = start(f",OUTSIDE://10.0.0.9:{PORT + 2}", "10.0.0.9")
    assert done.returncode == 0
    assert f"localhost:{PORT} and 10.0.0.9:{PORT + 2}" in done.stdout
