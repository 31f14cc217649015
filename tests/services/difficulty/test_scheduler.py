"""The scheduler: permission within the bound, never an answer, and the same bits after a restart at any moment."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.gate import Gate
from services.difficulty.budget.fixed import Fixed
from services.difficulty.estimate.beta import Beta
from services.difficulty.estimate.spo_tracker import SpoTracker
from services.difficulty.sampler.spo_prioritised import SpoPrioritised
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.scheduler import Scheduler
from services.difficulty.seen import Versions
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2
from tests.services.difficulty.schedulers import SECRET, build, prompt, train, verdict


def test_it_asks_for_whole_groups_up_to_the_bound_and_then_for_nothing():
    scheduler = build(max_lag=1, batch=8, n=4)
    requests = scheduler.issue(now_ms=1000)
    assert [request.n for request in requests] == [4] * 4
    assert scheduler.issue(now_ms=2000) == []


def test_a_request_says_all_that_generation_needs():
    request = build(request_deadline_s=2.5, versions=Versions(0, 3)).issue(now_ms=1000)[0]
    assert (request.request_id, request.group_id, request.attempt, request.final) == (
        "r-00000001",
        "g-00000001",
        1,
        True,
    )
    assert (request.deadline_ms, request.version_at_issue, request.first_index) == (3500, 3, 0)
    assert (request.purpose, request.domain, request.family) == (prompt_pb2.PURPOSE_TRAIN, "math", "sums")
    assert (request.belief.mean, request.belief.effective_n, request.belief.as_of_step) == (0.5, 2.0, 0)
    assert request.prompt_digest == prompt(int(request.prompt_id[1:])).digest
    assert request.messages[0].parts[0].text == f"question {request.prompt_id[1:]}"
    assert request.sampling.max_tokens == 16 and 0 < request.sampling.seed < 2**63


def test_a_request_says_which_weights_are_too_old_by_the_time_that_its_turn_comes():
    scheduler = build(max_lag=2, batch=8, n=4)
    first = scheduler.issue(now_ms=1000)
    assert [request.oldest_version for request in first] == [0] * 6  # there is no version yet
    scheduler.observe([train(1, first[:2])])
    assert [request.oldest_version for request in scheduler.issue(0)] == [1, 1]  # two batches are ahead: trained by 3
    scheduler.observe([train(2, first[2:4]), train(3, first[4:])])
    assert [request.oldest_version for request in scheduler.issue(0)] == [2, 2, 3, 3]


def test_the_answer_never_leaves():
    scheduler = build()
    sent = scheduler.issue(now_ms=0) + scheduler.changed()
    assert sent and not any(SECRET.encode() in noun.SerializeToString() for noun in sent)
    assert not any(SECRET.encode() in kept.SerializeToString() for kept in scheduler.prompts.values())


def test_the_belief_in_a_request_is_the_posterior_at_issue():
    scheduler = build(prompts=1, max_lag=0, batch=4)
    first = scheduler.issue(0)[0]
    scheduler.observe([verdict(first, i, a) for i, a in enumerate((1.0, 1.0, 1.0, 0.0))] + [train(1, [first])])
    second = scheduler.issue(0)[0]
    alpha, beta = 1 + 0.99 * 3, 1 + 0.99 * 1
    assert second.belief.mean == pytest.approx(alpha / (alpha + beta))
    assert (second.belief.effective_n, second.belief.as_of_step) == (pytest.approx(alpha + beta), 1)
    assert second.version_at_issue == 1


def test_places_that_a_step_gives_back_are_asked_for_again():
    scheduler = build(max_lag=0, batch=8, n=4)
    requests = scheduler.issue(0)
    scheduler.observe([train(1, requests[:1])])
    assert [request.request_id for request in scheduler.issue(0)] == ["r-00000003"]


def test_a_drop_notice_opens_the_gate_without_a_step():
    scheduler = build(max_lag=0, batch=4, n=4)
    request = scheduler.issue(0)[0]
    keys = [rollout_pb2.RolloutKey(request_id=request.request_id, index=i) for i in range(4)]
    drops = [training_pb2.Drop(key=key, reason="degenerate_group") for key in keys]
    scheduler.observe([training_pb2.DropNotice(epoch=1, after_step=0, drops=drops)])
    assert len(scheduler.issue(0)) == 1


def test_one_prompt_can_fill_a_whole_batch():
    requests = build(prompts=1, max_lag=0, batch=8, n=4).issue(0)
    assert [(r.prompt_id, r.group_id) for r in requests] == [("p0", "g-00000001"), ("p0", "g-00000002")]


def test_draining_it_observes_on_and_issues_nothing():
    scheduler = build()
    requests = scheduler.issue(0)
    scheduler.draining = True
    scheduler.observe([verdict(requests[0], 0, 1.0), train(1, requests)])
    assert scheduler.issue(0) == []
    assert scheduler.gate.outstanding == 0 and scheduler.posterior(requests[0].prompt_id).visits == 1


def test_without_prompts_it_issues_nothing():
    assert build(prompts=0).issue(0) == []


def test_prompts_of_evaluation_sets_are_never_tried():
    scheduler = build(prompts=0)
    scheduler.observe([prompt(1, split="heldout"), prompt(2)])
    assert {request.prompt_id for request in scheduler.issue(0)} == {"p2"}
    scheduler.committed()
    assert scheduler.ignored["evaluation_prompt"] == 1


def test_two_prompts_of_one_id_that_differ_are_counted_and_the_first_stands():
    scheduler = build(prompts=1)
    other = prompt(0)
    other.digest = b"x" * 32
    scheduler.observe([other])
    scheduler.committed()
    assert scheduler.ignored["prompt_digest_differs"] == 1
    assert scheduler.prompts["p0"].digest == prompt(0).digest


def test_what_it_does_not_apply_is_counted_by_reason():
    scheduler = build()
    scheduler.observe([training_pb2.Rewind(epoch=2, to_step=0)])
    broken = rollout_pb2.Verdict(prompt_id="p1", outcome=rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR)
    scheduler.observe([broken, train(1, [], epoch=1), training_pb2.Rewind(epoch=1), training_pb2.Checkpoint()])
    scheduler.committed()
    assert scheduler.ignored == {"infra_error": 1, "void_step": 1, "old_rewind": 1, "not_for_difficulty": 1}


@pytest.mark.parametrize("name", ["", "__gate__"])
def test_an_id_under_which_no_posterior_can_be_kept_is_refused(name):
    scheduler, other = build(prompts=1), prompt(0)
    other.prompt_id = name
    scheduler.observe([other, other])
    assert [(noun.prompt_id, why) for noun, why in scheduler.refusals()] == [(name, "prompt_id_reserved")]
    assert name not in scheduler.prompts and len(scheduler.prompts) == 1


@pytest.mark.parametrize("shift", [float("nan"), float("inf"), -0.1])
def test_a_movement_that_is_no_distance_moves_nothing_and_is_counted(shift):
    scheduler = build(estimate=SpoTracker())
    requests = scheduler.issue(0)
    scheduler.observe([train(1, requests, shift=shift)])
    scheduler.committed()
    assert scheduler.ignored == {"movement_not_a_distance": len(requests)}
    assert not any(scheduler.store.columns["decayed"])


def test_what_was_taken_back_and_came_again_is_counted_once():
    scheduler = build()
    (request, *_) = scheduler.issue(0)
    scheduler.changed()
    scheduler.committed()
    nouns = [verdict(request, 0, 1.0), training_pb2.Rewind(epoch=0), training_pb2.Checkpoint()]
    for again in (True, False):
        scheduler.observe(nouns)
        scheduler.changed()
        if again:
            scheduler.undo()
    scheduler.committed()
    assert scheduler.ignored == {"not_for_difficulty": 1} and scheduler.calibration.outcomes_B.sum() == 1


def test_uniform_tries_every_prompt_once_per_pass_however_the_room_comes():
    scheduler, tried, number = build(prompts=10, sampler=Uniform(), max_lag=0, batch=12, n=4), [], 0
    while len(tried) < 30:
        number += 1
        requests = scheduler.issue(0)
        tried += [request.prompt_id for request in requests]
        scheduler.observe([train(number, requests)])
    assert [len(set(tried[i : i + 10])) for i in (0, 10, 20)] == [10, 10, 10]


def test_a_run_is_reproducible_from_its_seed():
    one, same, other = (play(build(seed=seed), 4)[0] for seed in (7, 7, 8))
    assert one == same != other


def test_only_what_changed_is_written_and_the_gate_comes_last():
    scheduler = build()
    requests = scheduler.issue(0)
    scheduler.observe([verdict(requests[1], 0, 1.0), verdict(requests[0], 0, 1.0)])
    ids = [getattr(record, "prompt_id", "gate") for record in scheduler.changed()]
    assert ids == [*sorted({requests[0].prompt_id, requests[1].prompt_id}), "gate"]
    assert scheduler.changed() == []


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"n": 16, "batch": 8}, "a group of 16 rollouts does not fit a batch; accepted: at most 8"),
        ({"request_deadline_s": 0}, "request_deadline_s is 0; accepted: above 0"),
        ({"seed": -1}, "seed is -1; accepted: at least 0"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(knobs, message):
    with pytest.raises(UserError, match=message):
        build(**knobs)


def test_sampling_that_cuts_the_distribution_is_refused_for_training():
    with pytest.raises(UserError, match="sampling.top_k is 5; accepted for training: 0"):
        Scheduler(Beta(), Uniform(), Fixed(4), Gate(0, 4), prompt_pb2.SamplingParams(temperature=1, top_p=1, top_k=5))


PARTS = [(Beta(), VadeThompson(uniform_share=0.2)), (SpoTracker(), SpoPrioritised()), (Beta(), Uniform())]


def moves(count, seed):
    """The kinds of a run's events, numbered."""
    generator = np.random.default_rng(seed)
    return [
        (str(generator.choice(["verdicts", "step", "drop", "rewind"], p=[0.4, 0.4, 0.1, 0.1])), i) for i in range(count)
    ]


class World:
    """A learner and verifier in a few lines: what they would say, given what was asked for."""

    def __init__(self):
        self.requests, self.trained, self.step, self.checkpoint, self.epoch = [], [], 0, 0, 1
        self.nouns = []

    def say(self, kind, number, issued):
        self.requests += issued
        if kind == "verdicts":
            return [verdict(r, i, ((number + i) % 5) / 4, self.step) for r in self.requests[:3] for i in range(r.n)]
        if kind == "step" and self.requests:
            used, self.requests = self.requests[:2], self.requests[2:]
            self.step += 1
            self.checkpoint = self.step if number % 3 == 0 else self.checkpoint
            self.trained.append((self.step, used))
            return [train(self.step, used, self.epoch, self.checkpoint, 0.001 * number)]
        if kind == "drop" and self.requests:
            dropped, self.requests = self.requests[0], self.requests[1:]
            keys = [rollout_pb2.RolloutKey(request_id=dropped.request_id, index=i) for i in range(dropped.n)]
            self.trained.append((self.step + 1, [dropped]))
            drops = [training_pb2.Drop(key=key, reason="stale") for key in keys]
            return [training_pb2.DropNotice(epoch=self.epoch, after_step=self.step, drops=drops)]
        if kind == "rewind":
            self.epoch, self.step = self.epoch + 1, self.checkpoint
            self.requests = [r for at, used in self.trained if at > self.step for r in used] + self.requests
            self.trained = [(at, used) for at, used in self.trained if at <= self.step]
            return [training_pb2.Rewind(epoch=self.epoch, to_step=self.step, version=self.step + 10 * self.epoch)]
        return []


def play(scheduler, count, restart_at=(), make=None, seed=0):
    """Everything the run wrote, as bytes; at `restart_at` a new process is built from the records alone."""
    world, topic, written = World(), {}, []
    for kind, number in moves(count, seed):
        issued = scheduler.issue(now_ms=1000 * number)
        assert not issued or scheduler.gate.outstanding <= scheduler.gate.capacity
        for record in scheduler.changed():
            topic[getattr(record, "prompt_id", "")] = record
        if number in restart_at:
            kept = [type(record).FromString(record.SerializeToString()) for record in reversed(topic.values())]
            scheduler = make()
            scheduler.restore(kept)
        scheduler.observe(world.say(kind, number, issued))
        records = scheduler.changed()
        topic.update({getattr(record, "prompt_id", ""): record for record in records})
        written += [noun.SerializeToString(deterministic=True) for noun in (*issued, *records)]
    return written, scheduler


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(PARTS), st.sets(st.integers(0, 39), max_size=5), st.integers(0, 99))
def test_a_run_restarted_at_any_moments_writes_the_same_bytes(parts, restart_at, seed):
    def make(reverse=True):
        return build(prompts=12, estimate=parts[0], sampler=parts[1], reverse=reverse)

    whole, last = play(make(reverse=False), 40, seed=seed)
    again, restarted = play(make(reverse=False), 40, restart_at, make, seed)
    assert again == whole
    assert restarted.gate.to_record() == last.gate.to_record()


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("seen", [True, False])
def test_undoing_a_call_that_was_not_committed_and_doing_it_again_writes_the_same(parts, seen):
    scheduler = build(estimate=parts[0], sampler=parts[1])
    first = scheduler.issue(0)
    scheduler.changed()
    scheduler.committed()

    def call():
        scheduler.observe([verdict(r, i, 1.0) for r in first for i in range(4)] + [train(1, first[:2])])
        issued = scheduler.issue(5)
        return issued + (scheduler.changed() if seen else [])

    once = call()
    scheduler.undo()
    assert call() == once and len(once) >= 2


def test_restored_after_a_rewind_below_the_newest_checkpoint_it_takes_back_what_the_live_one_would():
    live, again = build(estimate=SpoTracker(), prompts=1), build(estimate=SpoTracker(), prompts=1)
    (request, *_) = live.issue(0)
    live.observe([train(1, []), verdict(request, 0, 1.0), train(2, [request], shift=0.02), train(3, [], checkpoint=2)])
    records = live.changed()
    live.observe([training_pb2.Rewind(epoch=2, to_step=1)])
    again.restore(records + live.changed())
    for scheduler in (live, again):
        scheduler.observe([training_pb2.Rewind(epoch=3, to_step=1)])
    assert live.posterior("p0") == again.posterior("p0")


def test_restored_without_any_record_it_is_new_whatever_it_was():
    scheduler = build()
    fresh = scheduler.issue(0)
    scheduler.observe([verdict(fresh[0], 0, 1.0), train(1, fresh)])
    scheduler.restore([])
    assert scheduler.gate.to_record() == build().gate.to_record()
    assert scheduler.issue(0) == fresh and [r.DESCRIPTOR.name for r in scheduler.changed()] == ["GateState"]
