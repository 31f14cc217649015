"""Doors: who is let in, what is refused, and that each refusal is counted. Real sockets, real certificates."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from pipeline import access, door
from pipeline.access import Access
from pipeline.client import connect
from pipeline.door import Probe
from pipeline.errors import UserError
from pipeline.metrics import Meter
from sluice.v1 import control_pb2, control_pb2_grpc
from tests.pipeline.certificates import held, make_all, renew

ANYBODY = Access()
STATUS, DRAIN = control_pb2.StatusRequest(), control_pb2.OperateRequest(reason="why")


class Operator(control_pb2_grpc.OperatorServiceServicer):
    """Answers, `Pause` when it is told to."""

    def __init__(self):
        self.held = threading.Event()

    def Status(self, request, context):
        return control_pb2.WorkerStatus(worker_id="w")

    def Pause(self, request, context):
        self.held.wait(10)
        return control_pb2.WorkerStatus()

    def Drain(self, request, context):
        return control_pb2.WorkerStatus(reason=request.reason)


class Served:
    """A guarded door on a free port, and what it counted."""

    def __init__(self, rules: Access) -> None:
        self.meter = Meter("generation", "w")
        self.server = door.make_server(rules, self.meter)
        self.operator = Operator()
        control_pb2_grpc.add_OperatorServiceServicer_to_server(self.operator, self.server)
        self.address = door.listen(self.server, "127.0.0.1:0", rules)
        self.server.start()

    def call(self, client: Access = ANYBODY, request=STATUS, method="Status") -> str:
        """The code with which it ends."""
        with connect(self.address, client) as channel:
            stub = control_pb2_grpc.OperatorServiceStub(channel)
            try:
                getattr(stub, method)(request, timeout=5.0)
            except grpc.RpcError as error:
                return error.code().name
        return "OK"

    def refused(self, reason: str) -> float:
        return self.meter.values().get(f'sluice_stage_calls_refused_total{{reason="{reason}"}}', 0.0)


@pytest.fixture
def served():
    made = []

    def make(rules: Access) -> Served:
        made.append(Served(rules))
        return made[-1]

    yield make
    for one in made:
        one.server.stop(0)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    return make_all(tmp_path_factory.mktemp("certificates"))


def test_a_door_without_rules_answers_everybody_and_counts(served):
    one = served(Access())
    assert one.call() == "OK"
    assert one.meter.values()['sluice_stage_calls_total{code="OK",method="Status"}'] == 1


def test_tokens_give_roles_and_a_wrong_one_is_refused(served, tmp_path):
    (tmp_path / "tokens").write_text("read reader-token\nadmin admin-token\n")
    one = served(Access(tokens=str(tmp_path / "tokens")))
    clients = {}
    for name in ("reader", "admin", "wrong"):
        (tmp_path / name).write_text(f"{name}-token\n")
        clients[name] = Access(token=str(tmp_path / name))
    assert one.call(clients["reader"]) == "OK"
    assert one.call(clients["reader"], DRAIN, "Drain") == "PERMISSION_DENIED"
    assert one.call(clients["admin"], DRAIN, "Drain") == "OK"
    assert one.call(clients["wrong"]) == "UNAUTHENTICATED"
    assert one.call() == "UNAUTHENTICATED"
    assert (one.refused("no_role"), one.refused("wrong_token")) == (1, 2)
    (tmp_path / "tokens").write_text("read another\n")
    assert one.call(clients["reader"]) == "UNAUTHENTICATED"


def test_mutual_tls_lets_in_by_name_and_refuses_everybody_else(served, certificates):
    rules = replace(held(certificates, "server"), names=(("admin", "admin"), ("reader", "read")))
    one = served(rules)
    assert one.call(held(certificates, "admin"), DRAIN, "Drain") == "OK"
    assert one.call(held(certificates, "reader")) == "OK"
    assert one.call(held(certificates, "reader"), DRAIN, "Drain") == "PERMISSION_DENIED"
    assert one.call(held(certificates, "nobody")) == "PERMISSION_DENIED"
    assert (one.refused("no_role"), one.refused("wrong_name")) == (1, 1)
    for stranger in (Access(), held(certificates, "stranger"), held(certificates, "expired")):
        assert one.call(stranger) == "UNAVAILABLE"
    assert one.call(replace(held(certificates, "admin"), authority=str(certificates / "other.crt"))) == "UNAVAILABLE"


def test_a_renewed_certificate_is_served_without_a_restart(served, certificates, tmp_path):
    for name in ("server.crt", "server.key", "ca.crt"):
        (tmp_path / name).write_bytes((certificates / name).read_bytes())
    one = served(held(tmp_path, "server"))
    assert one.call(held(certificates, "admin")) == "OK"
    renew(tmp_path, "server", certificates, "nobody")
    assert one.call(held(certificates, "admin")) == "UNAVAILABLE"
    assert one.call(replace(held(certificates, "admin"), server_name="nobody")) == "OK"


def test_a_message_too_large_and_calls_too_fast_are_refused_and_counted(served):
    one = served(Access(max_message_bytes=1000, calls_per_s=2))
    assert one.call(request=control_pb2.OperateRequest(reason="x" * 1500), method="Drain") == "RESOURCE_EXHAUSTED"
    assert one.refused("too_large") == 1
    assert [one.call() for _ in range(3)][-1] == "RESOURCE_EXHAUSTED"
    assert one.refused("too_fast") >= 1


def test_who_may_not_call_takes_no_turn_from_who_may(served, tmp_path):
    (tmp_path / "tokens").write_text("read secret\n")
    (tmp_path / "token").write_text("secret")
    one = served(Access(tokens=str(tmp_path / "tokens"), calls_per_s=2))
    assert {one.call() for _ in range(10)} == {"UNAUTHENTICATED"}
    assert one.call(Access(token=str(tmp_path / "token"))) == "OK"
    assert one.refused("too_fast") == 0


def test_calls_too_many_are_refused_at_once_and_counted_and_there_is_room_again_when_one_ends(served):
    one = served(Access(max_calls=2))
    with connect(one.address, ANYBODY) as channel:
        stub = control_pb2_grpc.OperatorServiceStub(channel)
        calls = [stub.Pause.future(control_pb2.OperateRequest(), timeout=10.0) for _ in range(4)]
        until(lambda: one.refused("too_many") == 2)
        assert one.call() == "RESOURCE_EXHAUSTED" and one.refused("too_many") == 3
        one.operator.held.set()
        codes = sorted(call.code().name for call in calls)
    assert codes == ["OK", "OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
    until(lambda: one.call() == "OK")


def test_calls_that_their_callers_gave_up_leave_their_room(served):
    one = served(Access(max_calls=2))
    with connect(one.address, ANYBODY) as channel:
        stub = control_pb2_grpc.OperatorServiceStub(channel)
        for _ in range(6):
            call = stub.Pause.future(control_pb2.OperateRequest(), timeout=10.0)
            call.cancel()
    one.operator.held.set()
    until(lambda: one.call() == "OK")


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_message_that_cannot_be_read_is_refused_counted_and_leaves_nothing_behind(served):
    one = served(ANYBODY)
    with grpc.insecure_channel(one.address) as channel:
        raw = channel.unary_unary("/sluice.v1.OperatorService/Status")
        for seen in (0, 1000):
            before = psutil.Process().memory_info().rss
            for _ in range(1000):
                with pytest.raises(grpc.RpcError) as refused:
                    raw(b"\xff\xff\xff\x01", timeout=5.0)
            assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert refused.value.details() == (
                "message of 4 bytes cannot be read; accepted: the request of this method"
            )
            assert one.refused("unreadable") == seen + 1000
    assert psutil.Process().memory_info().rss - before < 5 * 2**20


def test_an_unknown_method_is_unimplemented_and_counted(served):
    one = served(Access())
    with grpc.insecure_channel(one.address) as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/sluice.v1.OperatorService/Explode")(b"", timeout=5.0)
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert one.refused("unknown_method") == 1


def test_half_a_setting_is_refused_with_a_sentence(tmp_path):
    with pytest.raises(UserError, match="SLUICE_TLS_KEY, SLUICE_TLS_CA is not set"):
        access.from_environment({"SLUICE_TLS_CERT": "a"})
    with pytest.raises(UserError, match="SLUICE_CALLS_PER_S is 'many'"):
        access.from_environment({"SLUICE_CALLS_PER_S": "many"})
    (tmp_path / "tokens").write_text("root canary-secret\n")
    with pytest.raises(UserError, match="line 1") as refused:
        access.from_environment({"SLUICE_TOKENS_FILE": str(tmp_path / "tokens")})
    assert "canary" not in str(refused.value)


def test_a_probe_says_started_live_and_ready_each_by_its_name():
    probe = Probe(0)
    try:
        with grpc.insecure_channel(probe.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            def is_so(name: str) -> bool:
                answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5.0)
                return answer.status == health_pb2.HealthCheckResponse.SERVING

            assert [is_so(name) for name in door.PROBES] == [False, False, True]
            probe.set("started", True)
            probe.set("", True)
            assert [is_so(name) for name in door.PROBES] == [True, True, True]
    finally:
        probe.close()


def test_however_many_watch_its_health_a_door_answers():
    with_health, watches = Served(ANYBODY), []
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, with_health.server)
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    channel = grpc.insecure_channel(with_health.address)
    for _ in range(2 * door.THREADS):
        watches.append(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()))
        assert next(watches[-1]).status == health_pb2.HealthCheckResponse.SERVING
    assert with_health.call() == "OK"
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert {next(watch).status for watch in watches} == {health_pb2.HealthCheckResponse.NOT_SERVING}
    channel.close()
    with_health.server.stop(0)
