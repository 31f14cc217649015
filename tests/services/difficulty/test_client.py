"""The service alone, as another program uses it: the documented client over real gRPC."""

from concurrent import futures

import grpc
import numpy as np
import pytest

from pipeline.difficulty_client import DifficultyClient
from pipeline.gate import Gate
from services.difficulty.budget.fixed import Fixed
from services.difficulty.door import Door
from services.difficulty.estimate.beta import Beta
from services.difficulty.handler import Handler
from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.scheduler import Scheduler
from sluice.v1 import difficulty_pb2, difficulty_pb2_grpc, prompt_pb2, rollout_pb2

RATES = {"hard": 0.0, "even": 0.4, "easy": 1.0}


@pytest.fixture
def place():
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
    scheduler = Scheduler(Beta(), VadeThompson(), Fixed(2), Gate(0, 2), sampling)
    scheduler.observe([prompt_pb2.Prompt(prompt_id=f"{kind}{i}", digest=b"d") for kind in RATES for i in range(10)])
    handler = Handler(scheduler, now_ms=lambda: 0)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    # What is told goes to the log and comes back through the stage: here at once.
    door = Door(handler, lambda sent: handler([noun for _, _, noun in sent]) and None)
    difficulty_pb2_grpc.add_DifficultyServiceServicer_to_server(door, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with DifficultyClient(f"127.0.0.1:{port}") as client:
        yield client, handler
    server.stop(None).wait(5)


def test_a_trainer_that_follows_the_order_comes_to_try_what_teaches(place):
    client, _ = place
    rng, tried = np.random.default_rng(0), []
    for _ in range(30):
        chosen = list(client.order(steps=1, n=6))
        tried.append(chosen)
        kinds = [(name, name.rstrip("0123456789")) for name in chosen for _ in range(4)]
        assert client.observe([(name, float(rng.random() < RATES[kind])) for name, kind in kinds]) == 24
    late = [name for chosen in tried[-10:] for name in chosen]
    assert sum(name.startswith("even") for name in late) > 0.6 * len(late)
    assert client.posterior([late[0]])[0].visits >= 4


def test_explain_says_why_in_a_sentence(place):
    client, _ = place
    client.observe([("easy0", 1.0)] * 40 + [("even0", 1.0), ("even0", 0.0), ("even0", 0.0)])
    solved, open_ = client.explain("easy0"), client.explain("even0")
    assert (solved.sampler, solved.compared, solved.state.visits) == ("vade_thompson", 30, 40)
    assert solved.percentile == 0 and solved.score < open_.score and solved.belief.mean > 0.9
    assert "believed to pass 98% of the time" in solved.sentence and "above 0% of 30 prompts" in solved.sentence


def test_a_snapshot_without_a_place_for_it_is_refused(place):
    client, _ = place
    with pytest.raises(grpc.RpcError) as caught:
        client._stub.Snapshot(difficulty_pb2.SnapshotRequest(), timeout=5)
    assert caught.value.details() == "this process keeps no snapshot"


def test_a_verdict_that_cannot_be_right_is_a_dead_letter(place):
    _, handler = place
    bad = rollout_pb2.Verdict(prompt_id="even1", outcome=1, accuracy=float("nan"), purpose=1)
    good = rollout_pb2.Verdict(prompt_id="even2", outcome=1, accuracy=1.0, purpose=1)
    sent = handler([bad, good])
    letters = [noun for topic, _, noun in sent if topic == "dead-letters"]
    assert [letter.reason for letter in letters] == ["accuracy_out_of_range: accuracy is nan; accepted: 0 to 1"]
    assert rollout_pb2.Verdict.FromString(letters[0].value).prompt_id == "even1"
    assert [noun.prompt_id for topic, key, noun in sent if topic == "posterior" and key == "even2"] == ["even2"]
    assert not [1 for topic, _, _ in handler([]) if topic == "dead-letters"]


def test_what_was_predicted_is_compared_with_what_came_back(place):
    _, handler = place
    request = next(noun for topic, _, noun in handler([]) if topic == "requests")
    key = rollout_pb2.RolloutKey(request_id=request.request_id)
    told = [rollout_pb2.Verdict(key=key, prompt_id=request.prompt_id, outcome=1, accuracy=a, purpose=1) for a in (1, 0)]
    handler(told)
    found = handler.gauges()
    assert (found["brier"], found["calibration_error"], found["observed_5"]) == (0.25, 0.0, 0.5)
    assert (found["informative_expected"], found["informative_observed"]) == (0.5, 1.0)
    assert sum(found[f"landscape_{place}"] for place in range(10)) == pytest.approx(1.0)
