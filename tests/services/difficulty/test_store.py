"""The store: bit-exact records, journals that a rewind can fold again, verdicts that it must not see."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.difficulty import seen
from services.difficulty import store as store_module
from services.difficulty.estimate.beta import Beta
from services.difficulty.estimate.ema import Ema
from services.difficulty.estimate.spo_tracker import SpoTracker
from services.difficulty.state import Observation
from services.difficulty.store import Store
from services.difficulty.view import TALLY_KEPT, Lived
from sluice.v1 import posterior_pb2, prompt_pb2, rollout_pb2, training_pb2

ESTIMATES = [Beta(lag_discount=0.9), SpoTracker(), Ema()]


def verdict(prompt_id, accuracy, outcome=rollout_pb2.VERDICT_OUTCOME_PARTIAL, low=0, high=0, purpose=1):
    return rollout_pb2.Verdict(
        prompt_id=prompt_id, accuracy=accuracy, outcome=outcome, min_version=low, max_version=high, purpose=purpose
    )


def step(number, shifts=(), checkpoint=0, epoch=1):
    moved = [training_pb2.PromptShift(prompt_id=p, mean_abs_logprob_change=d) for p, d in shifts]
    return training_pb2.TrainStep(epoch=epoch, step=number, version=number, shifts=moved, checkpoint_step=checkpoint)


def through_bytes(store, prompt_id):
    return posterior_pb2.PosteriorState.FromString(store.to_record(prompt_id).SerializeToString())


def test_a_verdict_moves_the_posterior_and_is_remembered():
    store = Store(Beta())
    store.apply_verdict(verdict("p", 1.0, low=2, high=3))
    record = store.to_record("p")
    assert dict(record.statistics) == {"alpha": 2.0, "beta": 1.0}
    assert (record.visits, record.last_version, list(record.recent)) == (1, 3, [1.0])


def test_recent_outcomes_are_bounded_and_newest_last():
    store = Store(Beta())
    for number in range(12):
        store.apply_verdict(verdict("p", number / 16))
    assert store.get("p").recent == tuple(number / 16 for number in range(4, 12))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (verdict("p", 0.0, rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR), "infra_error"),
        (verdict("p", 0.0, rollout_pb2.VERDICT_OUTCOME_NOT_RUN), "not_run"),
        (verdict("p", 0.0, rollout_pb2.VERDICT_OUTCOME_UNSPECIFIED), "unspecified"),
        (verdict("p", float("nan")), "accuracy_out_of_range"),
        (verdict("p", 1.5), "accuracy_out_of_range"),
        (verdict("", 1.0), "no_prompt"),
        (verdict("p", 1.0, purpose=prompt_pb2.PURPOSE_EVALUATE), "evaluation"),
    ],
)
def test_what_says_nothing_of_the_prompt_is_not_seen(what, reason):
    store = Store(Beta())
    assert seen.read([what]).reasons == [reason]
    assert not store.apply_verdict(what)
    assert not store.dirty


@pytest.mark.parametrize("name", ["WRONG", "UNPARSABLE", "TIMEOUT", "VIOLATION"])
def test_a_candidate_at_fault_counts_as_wrong(name):
    store = Store(Beta())
    assert store.apply_verdict(verdict("p", 0.0, getattr(rollout_pb2, f"VERDICT_OUTCOME_{name}")))
    assert store.get("p").stat.values == (1.0, 2.0)


def test_lag_runs_from_the_oldest_token_to_the_newest_version_known():
    store = Store(Beta(lag_discount=0.5))
    store.apply_step(step(5))
    store.apply_verdict(verdict("p", 1.0, low=3, high=5))
    assert store.get("p").stat.values == (1.25, 1.0)


def test_columns_grow_past_their_first_size_and_keep_what_they_held():
    store = Store(Beta())
    for number in range(200):
        store.apply_verdict(verdict(f"p{number}", number / 200))
    assert [store.get(f"p{number}").recent for number in range(200)] == [(number / 200,) for number in range(200)]


@pytest.mark.parametrize("other", [Ema(), Beta(prior_alpha=0.1)])
def test_a_record_of_another_estimate_or_of_other_knobs_is_not_taken_over(other):
    store, again = Store(Beta()), Store(other)
    store.apply_verdict(verdict("p", 1.0))
    again.from_record(store.to_record("p"))
    assert again.foreign == {0} and again.get("p").stat == other.initial()
    assert (
        again.foreign_writer == "beta(global_decay=0.99, lag_discount=1, local_decay=0.8, prior_alpha=1, prior_beta=1)"
    )
    again.from_record(again.to_record("p"))
    assert again.foreign == set()


def test_a_record_of_older_code_names_no_knobs_and_counts_as_the_estimates_own():
    store, again = Store(Beta()), Store(Beta(prior_alpha=0.1))
    store.apply_verdict(verdict("p", 1.0))
    record = store.to_record("p")
    record.estimator = "beta"
    again.from_record(record)
    assert again.foreign == set() and again.get("p").stat.values == (2.0, 1.0)


def test_a_knob_of_1_and_of_1_point_0_are_the_same_writer():
    assert Store(Beta(prior_alpha=1)).writer == Store(Beta(prior_alpha=1.0)).writer


def test_a_rewind_takes_back_the_movement_of_void_steps_and_keeps_the_outcomes():
    store, tracker = Store(SpoTracker()), SpoTracker()
    store.apply_step(step(1, checkpoint=1))
    store.apply_verdict(verdict("p", 1.0))
    store.apply_step(step(2, shifts=[("p", 0.02)], checkpoint=1))
    store.rewind(training_pb2.Rewind(epoch=2, to_step=1))
    assert store.get("p").stat == tracker(tracker.initial(), Observation(1.0), 1)


def test_after_a_rewind_no_prompt_was_tried_later_than_the_step_returned_to():
    store = Store(Beta())
    store.apply_step(step(2, checkpoint=2))
    store.apply_step(step(9, checkpoint=2))
    store.apply_verdict(verdict("p", 0.0))
    store.rewind(training_pb2.Rewind(epoch=2, to_step=2))
    store.apply_step(step(6, checkpoint=2, epoch=2))
    lived = Lived(store, np.array([0]), store.step)
    assert (lived.idle_P.tolist(), lived.tally_P.tolist()) == ([4], [pytest.approx(TALLY_KEPT**4)])
    store.apply_step(step(9, checkpoint=2, epoch=2))
    store.apply_verdict(verdict("p", 1.0))
    record = store.to_record("p")
    assert (record.turns, record.turn_outcomes, record.last_step) == (1, 1, 9)


def test_domains_may_be_more_than_a_short_number_holds():
    store = Store(Beta())
    for number in range(33_000):
        store.put_domain(f"p{number}", f"d{number}")
    assert store.columns["domain"][32_999] == 32_999


def test_what_a_checkpoint_covers_is_not_taken_back():
    store = Store(SpoTracker())
    store.apply_verdict(verdict("p", 1.0))
    store.apply_step(step(1, shifts=[("p", 0.02)]))
    moved = store.get("p").stat
    store.apply_step(step(2, checkpoint=1))
    assert not store.journals
    store.rewind(training_pb2.Rewind(epoch=2, to_step=1))
    assert store.get("p").stat == moved


def test_a_full_journal_settles_its_oldest_change(monkeypatch):
    monkeypatch.setattr(store_module, "MAX_PENDING", 2)
    store = Store(Beta())
    store.apply_step(step(1))
    for _ in range(5):
        store.apply_verdict(verdict("p", 1.0))
    journal = store.get("p").journal
    assert (len(journal.changes), journal.base.values, store.get("p").stat.values) == (2, (4.0, 1.0), (6.0, 1.0))


prompt_ids = st.sampled_from(["a", "b", "c"])
events = st.lists(
    st.one_of(
        st.tuples(st.just("verdict"), prompt_ids, st.floats(0, 1), st.integers(0, 4)),
        st.tuples(st.just("step"), st.dictionaries(prompt_ids, st.floats(0, 0.05)), st.booleans()),
    ),
    max_size=40,
)


def play(store, history, number=0, checkpoint=0):
    for event in history:
        if event[0] == "verdict":
            store.apply_verdict(verdict(event[1], event[2], low=event[3], high=event[3] + 1))
        else:
            number += 1
            checkpoint = number if event[2] else checkpoint
            store.apply_step(step(number, event[1].items(), checkpoint))
    return number, checkpoint


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ESTIMATES), events, events)
def test_restored_from_records_it_goes_on_with_the_same_bits(estimate, before, after):
    store, again = Store(estimate), Store(estimate)
    number, checkpoint = play(store, before)
    for prompt_id in reversed(store.rows):
        again.from_record(through_bytes(store, prompt_id))
    again.learner, again.step, again.version = store.learner, store.step, store.version
    again.checkpoint_step = store.checkpoint_step
    for one in (store, again):
        reached, settled = play(one, after, number, checkpoint)
        one.rewind(training_pb2.Rewind(epoch=2, to_step=settled, version=reached))
        play(one, after[:5], settled, settled)
    assert {p: store.to_record(p) for p in store.rows} == {p: again.to_record(p) for p in store.rows if p in again.rows}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([Beta(), SpoTracker(), Ema()]), events, events)
def test_after_a_rewind_it_is_as_if_the_void_steps_had_never_been(estimate, stands, void):
    rewound, never = Store(estimate), Store(estimate)
    for store in (rewound, never):
        number, _ = play(store, stands)
        store.settle(number)
    play(rewound, [e if e[0] == "verdict" else ("step", e[1], False) for e in void], number, number)
    rewound.rewind(training_pb2.Rewind(epoch=2, to_step=number))
    play(never, [("verdict", e[1], e[2], e[3]) for e in void if e[0] == "verdict"])
    seen = {e[1] for e in stands + void if e[0] == "verdict"}
    assert {p: rewound.get(p).stat for p in seen} == {p: never.get(p).stat for p in seen}
