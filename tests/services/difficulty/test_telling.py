"""What the door is told, over real gRPC and the real embedded log, by many at once."""

from concurrent import futures

import grpc
import pytest

from pipeline.difficulty_client import DifficultyClient
from pipeline.gate import Gate
from pipeline.log.api import read_all
from pipeline.topics import Names
from services.difficulty.budget.fixed import Fixed
from services.difficulty.door import Door
from services.difficulty.estimate.beta import Beta
from services.difficulty.handler import Handler
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.scheduler import Scheduler
from services.difficulty.telling import Teller
from sluice.v1 import difficulty_pb2_grpc, prompt_pb2

NAMES = Names("test", "run")
THREADS, CALLS = 8, 12


@pytest.fixture
def place(log):
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
    scheduler = Scheduler(Beta(), Uniform(), Fixed(2), Gate(0, 4), sampling)
    scheduler.observe([prompt_pb2.Prompt(prompt_id=f"p{number}", digest=b"d") for number in range(THREADS)])
    teller = Teller(log, NAMES, "difficulty.observe.one")
    server = grpc.server(futures.ThreadPoolExecutor(32))
    door = Door(Handler(scheduler, now_ms=lambda: 0), teller)
    difficulty_pb2_grpc.add_DifficultyServiceServicer_to_server(door, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait(5)
    teller.close()


def told(log):
    return len(read_all(log, NAMES.topic("verdicts")))


def test_eight_that_tell_at_once_do_not_fence_each_other(place, log):
    def tell(number):
        with DifficultyClient(place) as client:
            return sum(client.observe([(f"p{number}", 1.0)]) for _ in range(CALLS))

    with futures.ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(tell, range(THREADS))) == [CALLS] * THREADS
    assert told(log) == THREADS * CALLS


def test_where_another_process_took_over_the_caller_is_told_to_try_again_and_can(place, log):
    with DifficultyClient(place) as client:
        client.observe([("p0", 1.0)])
        log.writer(NAMES.own("difficulty.observe.one")).close()
        with pytest.raises(grpc.RpcError) as caught:
            client.observe([("p0", 0.0)])
        assert caught.value.code().name == "UNAVAILABLE"
        assert caught.value.details() == (
            f"another process writes observations as {NAMES.own('difficulty.observe.one')!r}; tell it again"
        )
        assert (client.observe([("p0", 0.0)]), told(log)) == (1, 2)
