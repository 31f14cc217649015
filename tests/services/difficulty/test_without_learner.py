"""A service that another trainer uses alone: a batch of outcomes is a turn, the newest version observed the newest."""

import itertools

import numpy as np
import pytest

from services.difficulty.estimate.beta import Beta
from services.difficulty.sampler.difficulty_pools import DifficultyPools
from services.difficulty.sampler.failed_replay import FailedReplay
from services.difficulty.sampler.historical_variance import HistoricalVariance
from services.difficulty.sampler.last_switch import LastSwitch
from sluice.v1 import posterior_pb2, rollout_pb2, training_pb2
from tests.services.difficulty import schedulers


def build(sampler=None, **knobs):
    """Four prompts, and four outcomes to a batch."""
    return schedulers.build(prompts=4, max_lag=0, batch=4, n=4, sampler=sampler, **knobs)


def verdict(number, accuracy, version=0):
    return rollout_pb2.Verdict(
        prompt_id=f"p{number}", outcome=1, accuracy=accuracy, purpose=1, min_version=version, max_version=version
    )


def rounds(count, of_p2):
    """In each round an outcome of every prompt; p2's are given, the others' are 1."""
    return [[verdict(n, of_p2[k] if n == 2 else 1.0) for n in range(4)] for k in range(count)]


def played(scheduler, told):
    scheduler.observe(told)
    scheduler.changed()
    scheduler.committed()
    return scheduler


def history(scheduler):
    return scheduler.view().all().history


def test_the_prompt_whose_outcomes_alternate_is_the_one_that_varies():
    scheduler = build(HistoricalVariance())
    for told in rounds(6, [0, 1, 0, 1, 0, 1]):
        played(scheduler, told)
    assert history(scheduler).turns_P.tolist() == [6, 6, 6, 6]
    assert history(scheduler).variance_P.tolist() == [0, 0, 0.25, 0]
    assert [choice.prompt_id for choice in scheduler.preview(3)] == ["p2"] * 3


def test_the_last_mean_is_of_the_newest_batch_and_not_of_everything():
    scheduler = build(DifficultyPools())
    played(scheduler, [one for told in rounds(3, [1, 1, 0]) for one in told])
    assert history(scheduler).last_mean_P.tolist() == [1, 1, 0, 1]
    assert DifficultyPools().classes(scheduler.view().all()).tolist() == [2, 2, 0, 2]


def test_a_failure_is_lately_for_so_many_batches_of_outcomes():
    scheduler, sampler = build(), FailedReplay(within=2)
    lately = []
    for told in [rounds(1, [0])[0], *[[verdict(0, 1.0)] * 4] * 3]:
        played(scheduler, told)
        lately.append(int(sampler.classes(scheduler.view().all())[2]))
    assert lately == [1, 1, 0, 0], "1, 2, 3 and 4 batches after the one in which it failed began"


def test_what_was_tried_rests_and_is_charged_again_by_batches_of_outcomes():
    scheduler = build()
    played(scheduler, [one for told in rounds(1, [1]) for one in told])
    played(scheduler, [verdict(0, 1.0)] * 8)
    assert (scheduler.store.turn, history(scheduler).idle_P.tolist()) == (3, [1, 3, 3, 3])
    assert (LastSwitch().weight(scheduler.view().all()) > 0).all()


def everything(scheduler):
    return [scheduler.posterior(f"p{n}").SerializeToString(deterministic=True) for n in range(4)]


LAGGED = [verdict(n % 4 if n % 3 else 1, (n % 5) / 4, version=7 * n % 11) for n in range(50)]


@pytest.mark.parametrize("sizes", [[50], [1] * 50, [3, 4, 5, 1, 37]])
def test_one_by_one_in_batches_and_after_restarts_it_is_the_same_to_the_bit(sizes):
    whole, scheduler, records = build(estimate=Beta(lag_discount=0.9)), build(estimate=Beta(lag_discount=0.9)), []
    whole.observe(LAGGED)
    for begin, end in itertools.pairwise([0, *np.cumsum(sizes).tolist()]):
        scheduler.observe(LAGGED[begin:end])
        records += scheduler.changed()
        scheduler = build(estimate=Beta(lag_discount=0.9))
        scheduler.restore(records)
    assert everything(scheduler) == everything(whole)
    assert scheduler.store.version == whole.store.version == 10 and scheduler.store.turn == whole.store.turn == 12


def test_what_was_taken_back_comes_again_with_the_same_bits():
    scheduler, again = build(estimate=Beta(lag_discount=0.5)), build(estimate=Beta(lag_discount=0.5))
    for one in (scheduler, again):
        played(one, LAGGED[:5])
    again.observe([*LAGGED[5:], verdict(0, 1.0, version=99), schedulers.train(1, [])])
    again.changed()
    again.undo()
    for one in (scheduler, again):
        played(one, LAGGED[5:])
    assert everything(scheduler) == everything(again)


def test_an_outcome_of_an_older_version_than_the_newest_observed_weighs_less():
    store = build(estimate=Beta(lag_discount=0.5)).store
    store.apply_verdicts([verdict(0, 1.0, version=100), verdict(1, 1.0, version=98), verdict(2, 1.0, version=101)])
    assert [store.get(f"p{n}").stat.values[0] for n in range(3)] == [2.0, 1.25, 2.0]


@pytest.mark.parametrize("first", ["step", "rewind"])
def test_from_a_learners_first_word_on_its_steps_and_versions_count(first):
    scheduler = build(estimate=Beta(lag_discount=0.5))
    played(scheduler, [one for told in rounds(3, [0, 1, 0]) for one in told] + [verdict(0, 1.0, version=100)])
    word = schedulers.train(1, []) if first == "step" else training_pb2.Rewind(epoch=1, to_step=0, version=1)
    scheduler.observe([word])
    records = [record for record in scheduler.changed() if isinstance(record, posterior_pb2.PosteriorState)]
    assert {record.prompt_id: record.last_step for record in records} == dict.fromkeys(("p0", "p1", "p2", "p3"), 0)
    assert (scheduler.store.turn, scheduler.store.version) == (int(first == "step"), 1)
    again = build(estimate=Beta(lag_discount=0.5))
    again.restore([*records, scheduler.gate_record()])
    assert (again.store.turn, again.store.version) == (scheduler.store.turn, 1)
    for one in (scheduler, again):
        one.observe([verdict(1, 1.0, version=1), verdict(2, 0.0)])
    assert everything(scheduler) == everything(again)
