"""Who calls a door: with token or certificate, one message or a stream, and on after both were renewed."""

from __future__ import annotations

import threading
from concurrent import futures
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from pipeline import door
from pipeline.access import Access
from pipeline.client import Client, connect
from pipeline.difficulty_client import DifficultyClient
from pipeline.errors import UserError
from pipeline.metrics import Meter
from pipeline.verification_client import VerificationClient, question
from sluice.v1 import (
    control_pb2,
    control_pb2_grpc,
    difficulty_pb2,
    difficulty_pb2_grpc,
    rollout_pb2,
    verification_pb2_grpc,
)
from tests.pipeline.certificates import held, make_all, renew

RIGHT = rollout_pb2.Verdict(outcome=rollout_pb2.VERDICT_OUTCOME_CORRECT, accuracy=1.0)
ASKED = [question("7", "exact", "7")] * 3


class Crafts(
    verification_pb2_grpc.VerificationServiceServicer,
    difficulty_pb2_grpc.DifficultyServiceServicer,
    control_pb2_grpc.OperatorServiceServicer,
):
    """Every answer is right, every prompt is `p`."""

    def VerifyStream(self, requests, context):
        for _ in requests:
            yield RIGHT

    def Next(self, request, context):
        return difficulty_pb2.NextResponse(choices=[difficulty_pb2.Choice(prompt_id="p")] * request.n)

    def Status(self, request, context):
        return control_pb2.WorkerStatus(worker_id="w")

    def Drain(self, request, context):
        return control_pb2.WorkerStatus(reason=request.reason)


@pytest.fixture
def served():
    """Opens a door with these rules; its address."""
    servers = []

    def serve(rules: Access) -> str:
        servers.append(door.make_server(rules, Meter("verification", "w")))
        for add in (
            verification_pb2_grpc.add_VerificationServiceServicer_to_server,
            difficulty_pb2_grpc.add_DifficultyServiceServicer_to_server,
            control_pb2_grpc.add_OperatorServiceServicer_to_server,
        ):
            add(Crafts(), servers[-1])
        address = door.listen(servers[-1], "127.0.0.1:0", rules)
        servers[-1].start()
        return address

    yield serve
    for server in servers:
        server.stop(0)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    return make_all(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def own(tmp_path, certificates):
    """A caller's own certificate, key and authority, to be renewed: at first those of this one."""

    def have(name: str) -> Access:
        (tmp_path / "ca.crt").write_bytes((certificates / "ca.crt").read_bytes())
        renew(tmp_path, "mine", certificates, name)
        return held(tmp_path, "mine")

    return have


def ask_all(address: str) -> None:
    """The three clients, one message and a stream of them."""
    with VerificationClient(address) as verification:
        assert verification.verify_all(ASKED) == [RIGHT] * 3
    with DifficultyClient(address) as difficulty:
        assert difficulty.next(2) == ["p", "p"]
    client = Client(address)
    assert client.status().worker_id == "w"
    assert list(client.verification.VerifyStream(iter(ASKED), timeout=5.0)) == [RIGHT] * 3
    client.close()


def said(call) -> str:
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def test_every_client_brings_the_token_of_the_environment_to_calls_and_streams(served, tmp_path, monkeypatch):
    (tmp_path / "tokens").write_text("call caller-token\n")
    (tmp_path / "token").write_text("caller-token\n")
    address = served(Access(tokens=str(tmp_path / "tokens")))
    with VerificationClient(address) as nobody:
        assert said(lambda: nobody.verify("7", "exact", "7")) == "UNAUTHENTICATED"
    monkeypatch.setenv("SLUICE_TOKEN_FILE", str(tmp_path / "token"))
    ask_all(address)


def test_every_client_brings_the_certificate_of_the_environment_to_calls_and_streams(served, certificates, monkeypatch):
    address = served(replace(held(certificates, "server"), names=(("admin", "call"),)))
    with DifficultyClient(address) as nobody:
        assert said(lambda: nobody.next(1)) == "UNAVAILABLE"
    mine = held(certificates, "admin")
    named = {"CERT": mine.certificate, "KEY": mine.key, "CA": mine.authority, "SERVER_NAME": "server"}
    for name, value in named.items():
        monkeypatch.setenv(f"SLUICE_TLS_{name}", value)
    ask_all(address)


def test_a_token_goes_over_tls_with_calls_and_streams(served, certificates, tmp_path):
    (tmp_path / "tokens").write_text("call caller-token\n")
    (tmp_path / "token").write_text("caller-token\n")
    address = served(replace(held(certificates, "server"), tokens=str(tmp_path / "tokens")))
    with connect(address, replace(held(certificates, "nobody"), token=str(tmp_path / "token"))) as channel:
        stub = verification_pb2_grpc.VerificationServiceStub(channel)
        assert list(stub.VerifyStream(iter(ASKED), timeout=5.0)) == [RIGHT] * 3


def test_a_caller_whose_certificate_has_expired_is_let_in_again_once_it_is_renewed(served, certificates, own, tmp_path):
    address = served(replace(held(certificates, "server"), names=(("admin", "call"),)))
    with connect(address, own("expired")) as channel:
        stub = difficulty_pb2_grpc.DifficultyServiceStub(channel)
        ask = lambda: stub.Next(difficulty_pb2.NextRequest(n=1), timeout=5.0)  # noqa: E731
        assert said(ask) == "UNAVAILABLE"
        renew(tmp_path, "mine", certificates, "admin")
        assert said(ask) == "OK"


def test_a_new_certificate_counts_from_the_next_call_though_the_old_connection_stands(
    served, certificates, own, tmp_path
):
    address = served(replace(held(certificates, "server"), names=(("reader", "read"), ("admin", "admin"))))
    with connect(address, own("reader")) as channel:
        stub = control_pb2_grpc.OperatorServiceStub(channel)
        drain = lambda: stub.Drain(control_pb2.OperateRequest(reason="why"), timeout=5.0)  # noqa: E731
        assert said(drain) == "PERMISSION_DENIED"
        renew(tmp_path, "mine", certificates, "admin")
        assert said(drain) == "OK"
        (tmp_path / "mine.key").unlink()
        assert said(drain) == "OK", "a renewal by hand is under way: the old one serves until it is done"
        (tmp_path / "mine.key").write_text("")
        assert said(drain) == "OK", "gRPC would end the process for an empty key"
        renew(tmp_path, "mine", certificates, "reader")
        assert said(drain) == "PERMISSION_DENIED"


def test_a_certificate_that_is_an_empty_file_is_refused_by_its_name(own, tmp_path):
    mine = own("admin")
    (tmp_path / "mine.crt").write_text("\n")
    with pytest.raises(UserError, match="mine.crt' is empty"):
        connect("127.0.0.1:1", mine)


def test_a_stream_at_work_outlives_a_renewal(served, certificates, own, tmp_path):
    address = served(held(certificates, "server"))
    renewed = threading.Event()

    def questions():
        yield ASKED[0]
        assert renewed.wait(10)
        yield ASKED[1]

    with connect(address, own("admin")) as channel, futures.ThreadPoolExecutor(1) as other:
        stub = verification_pb2_grpc.VerificationServiceStub(channel)
        verdicts = stub.VerifyStream(questions(), timeout=20.0)
        assert next(verdicts) == RIGHT
        renew(tmp_path, "mine", certificates, "reader")
        another = other.submit(lambda: list(stub.VerifyStream(iter(ASKED), timeout=5.0)))
        assert another.result(10) == [RIGHT] * 3
        renewed.set()
        assert list(verdicts) == [RIGHT]
