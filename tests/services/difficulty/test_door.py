"""The door over real gRPC: asking changes no belief, telling goes to the log, refusals name the value."""

from concurrent import futures

import grpc
import pytest

from pipeline.errors import LogUnavailable
from pipeline.gate import Gate
from services.difficulty.budget.fixed import Fixed
from services.difficulty.door import Door
from services.difficulty.estimate.beta import Beta
from services.difficulty.handler import Handler
from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.scheduler import Scheduler
from services.difficulty.seen import Versions
from sluice.v1 import difficulty_pb2, difficulty_pb2_grpc, prompt_pb2, rollout_pb2

Seen = difficulty_pb2.Observation


class Place:
    """A served door, and the log it writes to."""

    def __init__(self):
        sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=4)
        scheduler = Scheduler(Beta(), VadeThompson(), Fixed(2), Gate(0, 4), sampling)
        scheduler.observe([prompt_pb2.Prompt(prompt_id=f"p{i}", split="train") for i in range(3)])
        self.handler, self.log, self.down = Handler(scheduler, now_ms=lambda: 0), [], False
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        difficulty_pb2_grpc.add_DifficultyServiceServicer_to_server(Door(self.handler, self.write), self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.ask = difficulty_pb2_grpc.DifficultyServiceStub(self.channel)

    def write(self, sent):
        if self.down:
            raise LogUnavailable("the log does not answer")
        self.log += sent


@pytest.fixture
def place():
    place = Place()
    yield place
    place.channel.close()
    place.server.stop(None).wait(5)


def refusal(call, request):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=5)
    return caught.value.code().name, caught.value.details()


def test_next_chooses_and_disturbs_nothing(place):
    undisturbed = [noun for topic, _, noun in Place().handler([]) if topic == "requests"]
    choices = place.ask.Next(difficulty_pb2.NextRequest(n=2), timeout=5).choices
    assert [choice.rollouts for choice in choices] == [2, 2] and place.log == []
    assert [noun for topic, _, noun in place.handler([]) if topic == "requests"] == undisturbed


def test_next_refuses_none_and_more_than_there_are(place):
    for n in (0, 65_537):
        said = f"n is {n}; accepted: 1 to 65536"
        assert refusal(place.ask.Next, difficulty_pb2.NextRequest(n=n)) == ("INVALID_ARGUMENT", said)
    code, details = refusal(place.ask.Next, difficulty_pb2.NextRequest(n=4))
    assert (code, "4 distinct prompts" in details) == ("INVALID_ARGUMENT", True)


def test_an_observation_goes_to_the_log_and_comes_back_through_the_stage(place):
    request = difficulty_pb2.ObserveRequest(
        observations=[Seen(prompt_id="p1", accuracy=1.0), Seen(prompt_id="p1", accuracy=0.25, version=6)]
    )
    assert place.ask.Observe(request, timeout=5).accepted == 2
    nouns = [noun for _, _, noun in place.log]
    assert [(topic, key) for topic, key, _ in place.log] == [("verdicts", "p1")] * 2
    assert [noun.outcome for noun in nouns] == [
        rollout_pb2.VERDICT_OUTCOME_CORRECT,
        rollout_pb2.VERDICT_OUTCOME_PARTIAL,
    ]
    assert {noun.checker for noun in nouns} == {"external"} and nouns[1].max_version == 6
    assert place.ask.Posterior(difficulty_pb2.PosteriorRequest(prompt_ids=["p1"]), timeout=5).states[0].visits == 0
    place.handler(nouns)
    state = place.ask.Posterior(difficulty_pb2.PosteriorRequest(prompt_ids=["p1"]), timeout=5).states[0]
    assert (state.visits, dict(state.statistics)) == (2, {"alpha": 2.25, "beta": 1.75})


@pytest.mark.parametrize("accuracy", [float("nan"), -0.1, 1.1, float("inf")])
def test_an_accuracy_that_is_none_is_refused_and_nothing_is_written(place, accuracy):
    seen = [Seen(prompt_id="p0", accuracy=1.0), Seen(prompt_id="p1", accuracy=accuracy)]
    code, details = refusal(place.ask.Observe, difficulty_pb2.ObserveRequest(observations=seen))
    assert code == "INVALID_ARGUMENT" and "'p1'" in details and "0 to 1" in details
    assert place.log == []


@pytest.mark.parametrize("diversity", [-1.9, 1.5, float("nan"), float("inf")])
def test_a_diversity_that_is_none_is_refused_and_nothing_is_written(place, diversity):
    seen = [Seen(prompt_id="p0", accuracy=1.0, diversity=0.5), Seen(prompt_id="p1", accuracy=1.0, diversity=diversity)]
    said = refusal(place.ask.Observe, difficulty_pb2.ObserveRequest(observations=seen))
    assert said == ("INVALID_ARGUMENT", f"diversity of 'p1' is {diversity}; accepted: 0 to 1")
    assert place.log == []


@pytest.mark.parametrize(("version", "ok"), [(3, True), (9, True), (10, False), (2, False)])
def test_a_version_that_nobody_announced_or_that_the_log_forgot_is_refused(place, version, ok):
    place.handler.announced = lambda highest: Versions(3, 9)
    request = difficulty_pb2.ObserveRequest(observations=[Seen(prompt_id="p1", accuracy=1.0, version=version)])
    if ok:
        assert place.ask.Observe(request, timeout=5).accepted == 1
        return
    accepted = "accepted: 3 (oldest step on the log) to 9 (newest version announced)"
    assert refusal(place.ask.Observe, request) == ("INVALID_ARGUMENT", f"version of 'p1' is {version}; {accepted}")
    assert place.log == []


def test_unknown_prompts_are_named(place):
    asked = difficulty_pb2.PosteriorRequest(prompt_ids=["p0", "zebra", "ape"])
    assert refusal(place.ask.Posterior, asked) == ("NOT_FOUND", "no such prompts: 'ape', 'zebra'")
    told = difficulty_pb2.ObserveRequest(observations=[Seen(prompt_id="zebra", accuracy=1.0)])
    assert refusal(place.ask.Observe, told) == ("NOT_FOUND", "no such prompts: 'zebra'")


def test_a_prompt_of_which_only_the_posterior_is_left_is_shown_and_not_observed(place):
    place.handler.scheduler.store.add("gone")
    asked = difficulty_pb2.PosteriorRequest(prompt_ids=["gone"])
    assert place.ask.Posterior(asked, timeout=5).states[0].prompt_id == "gone"
    told = difficulty_pb2.ObserveRequest(observations=[Seen(prompt_id="gone", accuracy=1.0)])
    assert refusal(place.ask.Observe, told) == ("NOT_FOUND", "no such prompts: 'gone'")


def test_posteriors_come_in_the_order_asked_for(place):
    found = place.ask.Posterior(difficulty_pb2.PosteriorRequest(prompt_ids=["p2", "p0"]), timeout=5)
    assert [state.prompt_id for state in found.states] == ["p2", "p0"]


def test_it_is_unavailable_while_the_state_is_rebuilt_or_the_log_is_down(place):
    place.down = True
    told = difficulty_pb2.ObserveRequest(observations=[Seen(prompt_id="p0", accuracy=1.0)])
    assert refusal(place.ask.Observe, told) == ("UNAVAILABLE", "the log does not answer")
    place.handler.ready = False
    assert refusal(place.ask.Next, difficulty_pb2.NextRequest(n=1))[0] == "UNAVAILABLE"


def test_an_absurd_version_is_refused_where_nothing_was_announced(place):
    seen = [Seen(prompt_id="p0", accuracy=1.0, version=2**62), Seen(prompt_id="p1", accuracy=1.0, version=2**64 - 1)]
    said = "version of 'p1' is 18446744073709551615; accepted: at most 4611686018427387904"
    request = difficulty_pb2.ObserveRequest(observations=seen)
    assert refusal(place.ask.Observe, request) == ("INVALID_ARGUMENT", said) and place.log == []
    del request.observations[1]
    assert place.ask.Observe(request, timeout=5).accepted == 1
