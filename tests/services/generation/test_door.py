"""Generation's door, over a real gRPC channel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from services.generation.desk import Desk
from services.generation.door import Door
from services.generation.engine.api import EngineOptions
from services.generation.engine.transformers import TransformersEngine
from services.generation.prompting import Prompter
from services.generation.rollouts import Maker
from services.generation.versions import Versions
from sluice.v1 import generation_pb2, generation_pb2_grpc, prompt_pb2, rollout_pb2


@pytest.fixture
def desk(tokenizer, tiny_model) -> Iterator[Desk]:
    engine = TransformersEngine(tiny_model(0), EngineOptions(slots=4), tokenizer)
    engine.apply(3, tiny_model(0).state_dict())
    desk = Desk(engine, Prompter(tokenizer, engine.max_len), Maker("worker-0", engine.name, "keep"))
    yield desk
    desk.close()
    engine.close()


@pytest.fixture
def stub(desk) -> Iterator[generation_pb2_grpc.GenerationServiceStub]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(Door(desk, Versions(desk.engine, 2)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield generation_pb2_grpc.GenerationServiceStub(channel)
    server.stop(0)


def ask(n: int = 3, text: str = "hi", version: int | None = None, **sampling) -> generation_pb2.GenerateRequest:
    settings = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 6} | sampling
    request = prompt_pb2.RolloutRequest(
        n=n,
        purpose=prompt_pb2.PURPOSE_EVALUATE,
        messages=[prompt_pb2.Message(role="user", parts=[prompt_pb2.Part(text=text)])],
        sampling=prompt_pb2.SamplingParams(**settings),
    )
    return generation_pb2.GenerateRequest(request=request, version=version)


def refused(call, request) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call(request, timeout=20)
    return error.value.code(), error.value.details()


def test_rollouts_come_back_in_index_order(stub):
    said = stub.Generate(ask(n=5), timeout=20)
    assert [rollout.key.index for rollout in said.rollouts] == [0, 1, 2, 3, 4]
    assert all(rollout.calls[0].spans[0].version == 3 for rollout in said.rollouts)


def test_a_stream_sends_each_rollout_as_it_ends(stub):
    assert {rollout.key.index for rollout in stub.GenerateStream(ask(n=5), timeout=20)} == {0, 1, 2, 3, 4}


def test_equal_seeds_give_equal_answers(stub):
    one, two = (stub.Generate(ask(seed=9), timeout=20).rollouts for _ in range(2))
    assert [list(r.calls[0].tokens) for r in one] == [list(r.calls[0].tokens) for r in two]


def test_what_cannot_be_sampled_is_an_invalid_argument(stub):
    code = grpc.StatusCode.INVALID_ARGUMENT
    assert refused(stub.Generate, ask(top_p=2)) == (code, "top_p is 2 and min_p 0; accepted: (0, 1] and [0, 1)")
    assert refused(stub.Generate, ask(text="x" * 200))[0] == code
    training = ask(top_k=2)
    training.request.purpose = prompt_pb2.PURPOSE_TRAIN
    assert refused(stub.Generate, training) == (code, "top_k is 2 in a training request; accepted: 0")


def test_a_version_that_is_not_applied_is_a_failed_precondition(stub):
    sentence = "version 7 is not applied; the applied one is 3"
    assert refused(stub.Generate, ask(version=7)) == (grpc.StatusCode.FAILED_PRECONDITION, sentence)
    assert refused(stub.Hold, generation_pb2.HoldRequest(version=7, seconds=5)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        sentence,
    )
    assert refused(stub.Hold, generation_pb2.HoldRequest())[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_hold_names_its_version_and_can_be_released(stub):
    hold = stub.Hold(generation_pb2.HoldRequest(version=3, seconds=5), timeout=5)
    assert hold.version == 3 and hold.hold_id
    stub.Hold(generation_pb2.HoldRequest(release=hold.hold_id), timeout=5)
    assert len(stub.Generate(ask(version=3), timeout=20).rollouts) == 3


def test_a_call_that_was_given_up_is_taken_back(stub, desk):
    with pytest.raises(grpc.RpcError) as error:
        stub.Generate(ask(n=400, max_tokens=120, min_tokens=120), timeout=0.3)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    until = time.monotonic() + 5
    while desk.outstanding:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert stub.Generate(ask(), timeout=20).rollouts[0].ending in (rollout_pb2.ENDING_STOP, rollout_pb2.ENDING_LENGTH)
