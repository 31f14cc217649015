"""The service alone, as another program uses it: the documented client over real gRPC."""

import itertools
from concurrent import futures
from contextlib import contextmanager

import grpc
import numpy as np
import pytest

from pipeline.difficulty_client import DifficultyClient, Outcome
from pipeline.gate import Gate
from services.difficulty.budget.fixed import Fixed
from services.difficulty.door import Door
from services.difficulty.estimate.beta import Beta
from services.difficulty.handler import Handler
from services.difficulty.sampler.last_switch import LastSwitch
from services.difficulty.sampler.spo_prioritised import SpoPrioritised
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.scheduler import Scheduler
from sluice.v1 import difficulty_pb2, difficulty_pb2_grpc, prompt_pb2, rollout_pb2

RATES = {"hard": 0.0, "even": 0.4, "easy": 1.0}


@contextmanager
def served(sampler, prompt_ids, estimate=None):
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
    scheduler = Scheduler(estimate or Beta(), sampler, Fixed(2), Gate(0, 8), sampling)
    scheduler.observe([prompt_pb2.Prompt(prompt_id=prompt_id, digest=b"d") for prompt_id in prompt_ids])
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


@pytest.fixture
def place():
    with served(VadeThompson(), [f"{kind}{i}" for kind in RATES for i in range(10)]) as both:
        yield both


def tried(sampler, rounds):
    """What the service alone answers to `rounds` questions for 10 of 200 prompts, each told on before the next."""
    with served(sampler, [f"p{i}" for i in range(200)]) as (client, handler):
        handler([])  # the gate fills, and nobody serves it
        answers = []
        for _ in range(rounds):
            answers.append(client.next(10))
            client.observe([(prompt_id, 1.0) for prompt_id in answers[-1]])
    return answers


def test_uniform_alone_tries_every_prompt_once_before_any_twice():
    answers = tried(Uniform(), 40)
    for once in (answers[:20], answers[20:]):
        assert sorted(name for answer in once for name in answer) == sorted(f"p{i}" for i in range(200))


@pytest.mark.parametrize(
    "sampler", [SpoPrioritised(), LastSwitch(), VadeThompson()], ids=lambda each: type(each).__name__
)
def test_a_sampler_alone_comes_to_try_every_prompt_and_no_two_answers_are_the_same(sampler):
    answers = tried(sampler, 120)
    assert {name for answer in answers for name in answer} == {f"p{i}" for i in range(200)}
    assert all(set(one) != set(next_) for one, next_ in itertools.pairwise(answers))


def test_asking_ahead_without_news_gives_other_prompts():
    with served(Uniform(), [f"p{i}" for i in range(20)]) as (client, _):
        assert set(client.order(steps=2, n=10)) == {f"p{i}" for i in range(20)}


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


def test_an_outcome_may_say_its_version_and_its_groups_diversity_and_a_pair_is_of_the_newest():
    with served(Uniform(), ["a", "b", "c"], Beta(lag_discount=0.5)) as (client, handler):
        client.observe([Outcome("a", 1.0, version=100)])
        assert client.observe([Outcome("b", 1.0, version=98, diversity=0.25), ("c", 1.0)]) == 2
        states = client.posterior(["a", "b", "c"])
    assert [state.statistics["alpha"] for state in states] == [2.0, 1.25, 2.0]
    assert [state.last_version for state in states] == [100, 98, 100]
    assert [state.HasField("diversity") for state in states] == [False, True, False] and states[1].diversity == 0.25


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
    handler([])  # says that the records of the call before are committed
    found = handler.gauges()
    assert (found["brier"], found["calibration_error"], found["observed_5"]) == (0.25, 0.0, 0.5)
    assert (found["informative_expected"], found["informative_observed"]) == (0.5, 1.0)
    assert sum(found[f"landscape_{place}"] for place in range(10)) == pytest.approx(1.0)
