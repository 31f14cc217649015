"""The handler over the real engine: what becomes of every kind of request."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.digest import rollout_sha256
from pipeline.life import Life
from pipeline.metrics import Meter
from services.generation import desk as desks
from services.generation.admission import Admission
from services.generation.desk import Desk
from services.generation.engine.api import EngineOptions
from services.generation.engine.transformers import TransformersEngine
from services.generation.fleet import Applied, Post, Worker, WorkerDied
from services.generation.handler import Done, GenerationHandler
from services.generation.prompting import Prompter
from services.generation.rollouts import Maker
from services.generation.versions import Versions
from sluice.v1 import control_pb2, prompt_pb2, rollout_pb2

ABORTED, EXPIRED, FAILED = rollout_pb2.ENDING_ABORTED, rollout_pb2.ENDING_EXPIRED, rollout_pb2.ENDING_FAILED


@pytest.fixture
def handler(tokenizer, tiny_model) -> Iterator[GenerationHandler]:
    """A handler with 4 slots, version 5 applied, at most 2 versions of lag, in a run that runs."""
    engine = TransformersEngine(tiny_model(0), EngineOptions(slots=4), tokenizer)
    versions = Versions(engine, max_lag=2)
    versions.apply(5, tiny_model(0).state_dict())
    desk = Desk(engine, Prompter(tokenizer, engine.max_len), Maker("worker-0", engine.name, "keep"))
    life = Life(phase=control_pb2.PHASE_RUNNING)
    yield GenerationHandler(desk, versions, life, Meter("generation", "worker-0"))
    desk.close()
    engine.close()


def request(request_id: str = "r", text: str = "hello", **changes) -> prompt_pb2.RolloutRequest:
    """A training request for 3 rollouts of up to 8 tokens."""
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 8} | changes.pop("sampling", {})
    fields = {
        "request_id": request_id,
        "group_id": "g",
        "prompt_id": "p",
        "attempt": 1,
        "n": 3,
        "first_index": 2,
        "final": True,
        "version_at_issue": 5,
        "purpose": prompt_pb2.PURPOSE_TRAIN,
        "messages": [prompt_pb2.Message(role="user", parts=[prompt_pb2.Part(text=text)])],
        "belief": prompt_pb2.Belief(mean=0.25),
    }
    return prompt_pb2.RolloutRequest(**{**fields, **changes}, sampling=prompt_pb2.SamplingParams(**sampling))


def done(handler: GenerationHandler, number: int = 1, seconds: float = 20.0) -> list[Done]:
    """The next finished requests."""
    found: list[Done] = []
    until = time.monotonic() + seconds
    while len(found) < number and time.monotonic() < until:
        found += handler.done(0.1)
    assert len(found) == number
    return found


def said(one: Done) -> list[rollout_pb2.Rollout]:
    return [output.noun for output in one.outputs]


def test_all_rollouts_of_a_request_come_out_together_and_complete(handler, tokenizer):
    handler.take(request(), token=("requests", 0, 7))
    (one,) = done(handler)
    assert one.token == ("requests", 0, 7)
    assert [(output.topic, output.key) for output in one.outputs] == [("rollouts", "p")] * 3
    assert [rollout.key.index for rollout in said(one)] == [2, 3, 4]
    assert len({tuple(rollout.calls[0].tokens) for rollout in said(one)}) == 3
    for rollout in said(one):
        (call,) = rollout.calls
        assert tokenizer.decode(list(call.context_tokens)) == "hello="
        assert len(call.tokens) == len(call.logprobs) > 0
        assert [(s.first_token, s.policy_id, s.version, s.temperature) for s in call.spans] == [(0, "main", 5, 1.0)]
        assert call.ending == rollout.ending and call.text == tokenizer.decode(
            list(call.tokens), skip_special_tokens=True
        )
        assert rollout.sha256 == rollout_sha256(rollout)
        assert (rollout.final, rollout.request_n, rollout.group_id, rollout.belief.mean) == (True, 3, "g", 0.25)
        assert (rollout.worker_id, rollout.kv_policy, rollout.purpose) == ("worker-0", "keep", prompt_pb2.PURPOSE_TRAIN)
        assert rollout.engine.startswith("transformers 5.") and rollout.timings.ended_ms > 0


def test_every_rollout_and_token_is_counted_once_however_often_it_is_published(handler):
    handler.take(request(), token=1)
    handler.take(request("late", deadline_ms=1), token=2)
    tokens = sum(len(call.tokens) for one in done(handler, 2) for rollout in said(one) for call in rollout.calls)
    for _ in range(3):
        handler.publish()
    values = handler.meter.values()
    ended = {name: value for name, value in values.items() if name.startswith("sluice_generation_rollouts_total")}
    assert ended.pop('sluice_generation_rollouts_total{ending="expired"}') == 3 and sum(ended.values()) == 3
    assert values["sluice_generation_tokens_total"] == tokens > 0
    assert values["sluice_generation_response_tokens_sum"] == tokens


def test_the_lag_of_every_request_that_is_begun_is_counted(handler):
    handler.take(request("even"), token=1)
    handler.take(request("behind", version_at_issue=7), token=2)
    handler.take(request("late", deadline_ms=1), token=3)
    done(handler, 3)
    values = handler.meter.values()
    name = "sluice_generation_lag_versions"
    assert (values[f"{name}_count"], values[f"{name}_sum"]) == (2, 0 + 2)


def test_a_request_that_is_delivered_again_is_answered_with_nothing(handler):
    handler.take(request(), token=1)
    assert len(done(handler)[0].outputs) == 3
    handler.take(request(), token=2)
    (again,) = done(handler)
    assert (again.token, again.outputs) == (2, [])
    handler.take(request(attempt=2), token=3)
    assert len(done(handler)[0].outputs) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sampling": {"top_p": 0.9}}, "unsupported_sampling"),
        ({"sampling": {"top_k": 5}}, "unsupported_sampling"),
        ({"sampling": {"min_p": 0.1}}, "unsupported_sampling"),
        ({"sampling": {"min_tokens": 1}}, "unsupported_sampling"),
        ({"sampling": {"temperature": 0.0}}, "unsupported_sampling"),
        ({"text": "x" * 128}, "prompt_too_long"),
        ({"messages": [prompt_pb2.Message(role="user", parts=[prompt_pb2.Part(image={})])]}, "unsupported_content"),
    ],
)
def test_what_cannot_be_sampled_for_training_fails_with_its_reason(handler, changes, reason):
    handler.take(request(**changes), token=1)
    rollouts = said(done(handler)[0])
    assert [(rollout.ending, rollout.reason) for rollout in rollouts] == [(FAILED, reason)] * 3
    assert all(not rollout.calls and rollout.sha256 == rollout_sha256(rollout) for rollout in rollouts)


def test_an_evaluation_request_may_use_any_sampling(handler):
    handler.take(request(purpose=prompt_pb2.PURPOSE_EVALUATE, sampling={"top_k": 1, "temperature": 0.0}), token=1)
    rollouts = said(done(handler)[0])
    assert len({tuple(rollout.calls[0].tokens) for rollout in rollouts}) == 1


def test_a_request_past_its_deadline_expires(handler):
    handler.take(request(deadline_ms=int(time.time() * 1000) - 1), token=1)
    assert [(rollout.ending, rollout.reason) for rollout in said(done(handler)[0])] == [(EXPIRED, "deadline")] * 3


def test_a_request_waits_for_its_moment(handler):
    start_ms = int(time.time() * 1000) + 150
    handler.take(request(not_before_ms=start_ms), token=1)
    assert handler.done(0.01) == [] and handler.room() == 0
    done(handler)
    assert time.time() * 1000 >= start_ms


def test_a_stale_worker_takes_nothing_says_why_and_comes_back_by_itself(handler, tiny_model):
    assert handler.room() > 0
    handler.versions.heard(8)
    assert handler.room() == 0 and handler.waiting_for() == "stale"
    assert handler.standing().reason == "applied version 5 is 3 behind 8; the bound is 2"
    handler.versions.apply(6, tiny_model(0).state_dict())
    assert handler.room() > 0 and handler.waiting_for() == "no_requests"


def test_a_request_of_a_newer_policy_waits_until_the_weights_are_fresh_enough(handler, tiny_model):
    handler.take(request(version_at_issue=9), token=1)
    assert handler.done(0.1) == [] and handler.standing().state == control_pb2.WORKER_STATE_STALE
    handler.versions.apply(7, tiny_model(0).state_dict())
    assert said(done(handler)[0])[0].calls[0].spans[0].version == 7


def test_a_request_that_would_be_too_stale_at_its_turn_waits_for_newer_weights_and_says_so(handler, tiny_model):
    handler.take(request(version_at_issue=6, oldest_version=6), token=1)
    assert handler.done(0.1) == [] and handler.room() == 0 and handler.waiting_for() == "weights"
    assert handler.standing().state == control_pb2.WORKER_STATE_SERVING
    handler.versions.apply(6, tiny_model(0).state_dict())
    assert said(done(handler)[0])[0].calls[0].spans[0].version == 6
    assert handler.room() > 0 and handler.waiting_for() == "no_requests"


def test_a_request_whose_weights_do_not_come_is_handed_to_another_worker_and_the_fourth_keeps_it(handler, tiny_model):
    now = [1000.0]
    handler.clock = lambda: now[0]
    handler.take(request("first", version_at_issue=9, not_before_ms=1_002_000), token=1)
    handler.take(request("last", version_at_issue=9, attempt=4), token=2)
    now[0] += 6.9  # it was to wait for two seconds, and has waited for its weights for less than five
    assert handler.done(0.0) == []
    now[0] += 0.2
    (one,) = done(handler)
    (output,) = one.outputs
    assert (one.token, output.topic, output.key) == (1, "requests-retry", "first/2")
    expected = request("first", version_at_issue=9, attempt=2, not_before_ms=1_007_600)
    assert output.noun == expected
    assert handler.counts["handed_back"] == 1 and handler.gauges()["parked"] == 1
    handler.take(output.noun, token=3)  # its own again: nobody else was there
    handler.versions.apply(7, tiny_model(0).state_dict())
    now[0] += 1.0
    found = {one.token: said(one) for one in done(handler, 2)}
    assert {token: [rollout.key.attempt for rollout in made] for token, made in found.items()} == {
        2: [4, 4, 4],
        3: [2, 2, 2],
    }


def test_nothing_is_taken_before_the_first_weights_while_paused_or_when_full(handler):
    handler.versions.post = Post(Worker(max_lag=2, loaded=True))
    assert handler.room() == 0 and handler.waiting_for() == "no_weights"
    handler.versions.post.tell(Applied(5))
    handler.life.pause()
    assert handler.room() == 0 and handler.waiting_for() == "paused"
    handler.life.resume()
    handler.take(request(n=100, sampling={"max_tokens": 100}), token=1)
    assert handler.room() == 0 and handler.waiting_for() == "engine"


def test_a_leaving_worker_finishes_what_it_has(handler):
    handler.take(request(), token=1)
    handler.drain(end_now=False)
    assert handler.room() == 0
    assert all(rollout.ending != ABORTED for rollout in said(done(handler)[0]))
    assert handler.standing().state == control_pb2.WORKER_STATE_DRAINED


def test_when_the_run_ends_everything_asked_for_is_ended_at_once(handler):
    handler.take(request("running", n=20, sampling={"max_tokens": 120}), token=1)
    handler.take(request("parked", not_before_ms=2**50), token=2)
    handler.life.phase = control_pb2.PHASE_DRAINING
    handler.drain(end_now=True)
    assert handler.room() > 0
    handler.take(request("on the log still"), token=3)
    found = {one.token: said(one) for one in done(handler, 3)}
    assert {token: len(rollouts) for token, rollouts in found.items()} == {1: 20, 2: 3, 3: 3}
    assert {rollout.ending for token in (2, 3) for rollout in found[token]} == {ABORTED}
    assert any(rollout.ending == ABORTED for rollout in found[1])
    for _ in range(3):
        handler.room()
    assert handler.standing().state == control_pb2.WORKER_STATE_DRAINED


def test_a_record_that_cannot_be_read_ends_as_failed_rollouts_from_its_headers(handler):
    ids = {"request_id": "r", "group_id": "g", "prompt_id": "p", "attempt": "1", "n": "2", "first_index": "4"}
    outputs = handler.poison(ids, "poison")
    assert [(output.topic, output.key) for output in outputs] == [("rollouts", "p")] * 2
    assert [(output.noun.key.index, output.noun.ending, output.noun.reason) for output in outputs] == [
        (4, FAILED, "poison"),
        (5, FAILED, "poison"),
    ]
    assert handler.poison({}, "poison") == []


def test_a_dead_engine_ends_the_stage_and_leaves_its_requests_uncommitted(handler):
    handler.desk.engine._decoder.model.forward = None
    handler.take(request(), token=1)
    with pytest.raises(WorkerDied, match="engine ended: TypeError"):
        done(handler)
    standing = handler.standing()
    assert standing.state == control_pb2.WORKER_STATE_DEAD and "TypeError" in standing.reason
    assert handler.room() == 0 and handler.waiting_for() == "dead"
    with pytest.raises(WorkerDied):
        handler.done(0.0)


def test_an_engine_that_keeps_a_rollout_long_after_its_deadline_counts_as_dead(handler, monkeypatch):
    release = threading.Event()
    handler.desk.engine._decoder.step = lambda: release.wait(10)
    monkeypatch.setattr(desks, "OVERDUE_S", 0.2)
    monkeypatch.setattr(desks, "OVERDUE_EVERY_S", 0.1)
    handler.take(request(deadline_ms=int(time.time() * 1000) + 200), token=1)
    with pytest.raises(WorkerDied, match="the engine hangs: 3 rollouts"):
        done(handler)
    release.set()


def test_with_its_cache_full_it_takes_less_and_hands_back_what_it_has_no_room_for(handler):
    now = [1000.0]
    handler.clock = lambda: now[0]
    handler.admission = Admission(limit=2.0)
    handler._looked_s = time.monotonic() + 60  # no look meanwhile
    handler.take(request("first", n=3, sampling={"max_tokens": 120}), token=1)
    assert handler.room() == 0 and handler.waiting_for() == "kv_cache"
    handler.desk.engine._interrupts = lambda: time.sleep(0.05)
    handler.take(request("second"), token=2)
    now[0] += 5.1
    found = {one.token: one.outputs for one in done(handler)}
    assert [(output.topic, output.noun.attempt) for output in found[2]] == [("requests-retry", 2)]
    assert handler.counts["handed_back"] == 1 and handler.gauges()["admitted"] == 2.0


@pytest.mark.parametrize(("shared", "limit"), [(True, 3.0), (False, 5.0)])
def test_a_full_cache_holds_back_only_where_sequences_compete_for_it(handler, shared, limit):
    engine = handler.desk.engine
    engine.kv_shared, engine.kv_use = shared, lambda: 0.99
    release = threading.Event()
    engine._interrupts = lambda: release.wait(10)
    handler.take(request(n=4), token=1)
    handler._looked_s = 0.0
    handler.room()
    assert handler.admission.limit == limit
    release.set()


def test_the_cache_is_said_to_be_as_full_as_its_rows_are_long(handler):
    assert handler.gauges()["kv_used"] == 0.0
    handler.desk.engine._batch.length_S[:2] = (32, 96)
    handler.desk.engine._batch.n = 2
    assert handler.desk.engine.kv_use() == 128 / (4 * 128)
    handler.desk.engine._batch.n = 0
