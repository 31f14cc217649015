from concurrent import futures

import grpc
import pytest

from pipeline import parts
from services.verification.checker import Checker
from services.verification.door import VerificationDoor
from services.verification.pool import Pool
from sluice.v1 import prompt_pb2, rollout_pb2, verification_pb2, verification_pb2_grpc
from sluice.v1.verification_pb2 import VerifyRequest

REGISTERED = prompt_pb2.Prompt(prompt_id="p", check=prompt_pb2.CheckSpec(check="exact", answer="42"), domain="math")
EXACT = prompt_pb2.CheckSpec(check="exact", answer="7")


@pytest.fixture(scope="module")
def stub():
    pool = Pool(workers=1)
    server = grpc.server(futures.ThreadPoolExecutor(4))
    door = VerificationDoor(Checker(pool), {"p": REGISTERED}.get)
    verification_pb2_grpc.add_VerificationServiceServicer_to_server(door, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield verification_pb2_grpc.VerificationServiceStub(channel)
    server.stop(0)
    pool.close()


def test_an_answer_is_checked_by_the_check_that_comes_with_it(stub):
    assert stub.Verify(VerifyRequest(answer="7", check=EXACT), timeout=10).accuracy == 1
    assert stub.Verify(VerifyRequest(answer="8", check=EXACT), timeout=10).accuracy == 0


def test_an_answer_is_checked_as_its_registered_prompt_says(stub):
    verdict = stub.Verify(VerifyRequest(answer="42", prompt_id="p"), timeout=10)
    assert (verdict.accuracy, verdict.prompt_id, verdict.domain) == (1, "p", "math")


def test_a_whole_rollout_gets_a_verdict_with_its_key(stub):
    rollout = rollout_pb2.Rollout(
        key=rollout_pb2.RolloutKey(request_id="r", index=2), prompt_id="p", calls=[rollout_pb2.Call(text="42")]
    )
    verdict = stub.Verify(VerifyRequest(rollout=rollout), timeout=10)
    assert (verdict.accuracy, verdict.key.index) == (1, 2)


def test_a_check_that_needs_a_worker_works_beside_grpc(stub):
    check = prompt_pb2.CheckSpec(check="math", answer="1/2")
    assert stub.Verify(VerifyRequest(answer=r"\boxed{0.5}", check=check), timeout=60).accuracy == 1


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (VerifyRequest(answer="1"), "names no check"),
        (VerifyRequest(answer="1", prompt_id="q"), "prompt_id is 'q'"),
        (VerifyRequest(answer="1", check=prompt_pb2.CheckSpec(check="no_such")), "accepted: .*exact"),
        (VerifyRequest(answer="1", check=prompt_pb2.CheckSpec(check="reasoning_gym")), "accepted: an object"),
    ],
)
def test_bad_input_is_an_invalid_argument_with_a_sentence(stub, request_, sentence):
    with pytest.raises(grpc.RpcError, match=sentence) as caught:
        stub.Verify(request_, timeout=60)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError, match=sentence):
        list(stub.VerifyStream(iter([request_]), timeout=60))


def test_a_stream_is_answered_in_its_order(stub):
    requests = (VerifyRequest(answer=str(number % 10), check=EXACT) for number in range(1000))
    accuracies = [verdict.accuracy for verdict in stub.VerifyStream(requests, timeout=60)]
    assert accuracies == [float(number % 10 == 7) for number in range(1000)]


def test_a_stream_that_waits_for_each_answer_gets_it(stub):
    answered = []

    def requests():
        for number in range(3):
            assert len(answered) == number
            yield VerifyRequest(answer="7", check=EXACT)
            while len(answered) == number:
                pass

    for verdict in stub.VerifyStream(requests(), timeout=20):
        answered.append(verdict)
    assert len(answered) == 3


def test_the_checks_are_listed_by_name(stub):
    found = stub.ListChecks(verification_pb2.ListChecksRequest(), timeout=10).checks
    assert [check.name for check in found] == parts.names("verification.check")
    assert all(check.title and check.version and not check.unavailable for check in found)
