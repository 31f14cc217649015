"""A worker is whole or it is gone."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pipeline import config, topics
from pipeline.log.api import Send, read_all
from pipeline.rundir import RunDir
from tests.bench.runs import ROOT, SPELL

WORKER = """
import sys, types
from pipeline import serve
from pipeline.log import expiring
serve.LIVE_S, expiring.EVERY_S = 2.0, 0.5

class Service:
    def __init__(self, context): self.context = context
    def register(self, server): return []
    def run(self): self.context.life.sleep(120)
    def status(self, status): {does}
    def close(self): pass

sys.modules["services.verification.service"] = types.SimpleNamespace(build=Service)
ports = serve.Ports("127.0.0.1:0", probe=int(sys.argv[2]))
sys.exit(serve.serve("verification", sys.argv[1], "verification-0", ports, {alone}))
"""


@pytest.fixture
def directory(tmp_path):
    made = RunDir.make(tmp_path / "run", config.load(SPELL))
    log = made.open_log()
    topics.create(log, made.names(), local=True)
    log.close()
    return made


@pytest.fixture
def worker(directory):
    """Starts a worker whose status does this: (process, the port of its probe)."""
    started = []

    def start(does: str, alone: bool = False) -> tuple[subprocess.Popen, int]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-c", WORKER.format(does=does, alone=alone), str(directory.path), str(port)]
        started.append(subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True))
        return started[-1], port

    yield start
    for process in started:
        process.kill()
        process.wait()


def lives(port: int) -> bool | None:
    """What the probe says; None while nobody answers."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            asked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="live"), timeout=2)
        except grpc.RpcError:
            return None
    return asked.status == health_pb2.HealthCheckResponse.SERVING


def within(seconds: float, is_so) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if is_so():
            return True
        time.sleep(0.2)
    return False


def test_a_worker_whose_report_dies_ends_and_says_why(worker):
    process, _ = worker("raise ValueError('no such figure')")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 4, said
    assert "the worker ends, because report died: no such figure" in said


def test_a_loop_that_does_not_turn_is_not_alive_whatever_its_report_does(worker):
    process, port = worker("self.context.meter.worked(1.0)")
    assert within(30, lambda: lives(port) is True)
    assert within(30, lambda: lives(port) is False)
    assert process.poll() is None


def test_a_loop_that_turns_is_alive(worker):
    process, port = worker("self.context.meter.turned()")
    assert within(30, lambda: lives(port) is True)
    assert not within(5, lambda: lives(port) is False)


def test_a_control_record_that_cannot_be_read_ends_no_worker(directory, worker):
    log, names = directory.open_log(), directory.names()
    writer = log.writer(names.own("somebody"))
    with writer.transaction() as transaction:
        transaction.sends.append(Send(names.topic("control"), b"run", b"\xff", (("schema", b"Control/99.0"),)))
    writer.close()
    log.close()
    process, port = worker("self.context.meter.turned()")
    assert within(30, lambda: lives(port) is True)
    assert not within(3, lambda: process.poll() is not None)
    process.kill()
    assert "offset 0 of `control` is passed over: Control record has schema version '99.0'" in process.communicate()[1]


def test_a_service_that_is_served_alone_lets_its_log_forget(directory, worker):
    log, topic = directory.open_log(), directory.names().topic("posterior")
    writer = log.writer("somebody")
    with writer.transaction() as transaction:
        transaction.sends.extend(Send(topic, b"p0", b"%d" % number) for number in range(200))
    writer.close()
    process, _ = worker("self.context.meter.turned()", alone=True)
    assert within(30, lambda: [record.value for record in read_all(log, topic)] == [b"199"])
    assert process.poll() is None
    log.close()
