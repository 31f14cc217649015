"""A canary in every secret, and all that a service with such secrets says: on its outputs, its doors, its metrics page,
in its run directory and on its log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest

from pipeline.client import Client
from pipeline.difficulty_client import DifficultyClient
from pipeline.log.api import read_all
from pipeline.rundir import RunDir
from sluice.v1 import control_pb2
from tests.pipeline.certificates import held, make_all
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
CANARY = "canary-7d41c0ffee"


def secrets(folder: Path) -> dict[str, str]:
    """Every secret that Sluice takes, each with a canary in it, as the environment names it."""
    (folder / "password").write_text(CANARY)
    (folder / "token").write_text(CANARY)
    (folder / "tokens").write_text(f"admin {CANARY}\nread {CANARY}-2\n")
    return {
        "SLUICE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "SLUICE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "SLUICE_KAFKA_SASL_USERNAME": "me",
        "SLUICE_KAFKA_SASL_PASSWORD_FILE": str(folder / "password"),
        "SLUICE_TOKEN_FILE": str(folder / "token"),
        "SLUICE_TOKENS_FILE": str(folder / "tokens"),
        "HF_TOKEN": f"hf_{CANARY}",
        "SLUICE_LOG_LEVEL": "DEBUG",
    }


def by_tls(folder: Path) -> dict[str, str]:
    """The same doors by certificate too."""
    made = make_all(folder)
    mine = held(made, "server")
    named = {"CERT": mine.certificate, "KEY": mine.key, "CA": mine.authority, "SERVER_NAME": "server"}
    return {f"SLUICE_TLS_{name}": value for name, value in named.items()}


def sluice(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
    )


def all_that_is_said(path: Path, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Serve difficulty in the run directory at `path`, ask it everything, end it; what it said, by where."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    address, page = f"127.0.0.1:{free_port()}", free_port()
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "serve", "difficulty", str(path)]
    command += ["--address", address, "--metrics-port", str(page)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            served = process.stdout.readline()
            assert served == f"difficulty serves on {address}\n", process.stderr.read()
            said = {"answers": answers(address, path.parent, monkeypatch)}
            said["metrics"] = urllib.request.urlopen(f"http://127.0.0.1:{page}/metrics", timeout=10).read().decode()
        finally:
            process.send_signal(signal.SIGTERM)
            said["stdout"], said["stderr"] = process.communicate(timeout=60)
    assert process.returncode == 0
    log = RunDir.of(str(path)).open_log()
    written = {topic: read_all(log, topic) for topic in log.topics()}
    log.close()
    files = {str(file): file.read_text(errors="replace") for file in path.rglob("*") if file.is_file()}
    return said | files | {topic: repr(records) for topic, records in written.items()}


def answers(address: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the doors answer to who may ask, and to who may not."""
    client = Client(address)
    status = control_pb2.StatusRequest()
    said = [str(ask(status, timeout=10.0)) for ask in (client.operator.Status, client.operator.Describe)]
    with DifficultyClient(address) as difficulty:
        (prompt,) = difficulty.next(1)
        said += [str(difficulty.observe([(prompt, 1.0)])), str(difficulty.explain(prompt))]
    (folder / "wrong").write_text(f"{CANARY}-wrong")
    with monkeypatch.context() as wrong:
        wrong.setenv("SLUICE_TOKEN_FILE", str(folder / "wrong"))
        with DifficultyClient(address) as nobody, pytest.raises(grpc.RpcError) as refused:
            nobody.next(1)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    client.close()
    return "\n".join([*said, str(refused.value)])


def canaries_in(said: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    """Where one is, the private key's text taken for one too."""
    key = environment.get("SLUICE_TLS_KEY")
    lines = Path(key).read_text().splitlines()[1:-1] if key else []
    return [where for where, text in said.items() if any(one in text for one in (CANARY, *lines))]
