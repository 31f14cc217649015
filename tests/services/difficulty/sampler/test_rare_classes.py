"""Samplers by class look for a rare one only where it can be: not among prompts of which nothing is known."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from pipeline import parts
from services.difficulty.estimate.beta import Beta
from services.difficulty.sampler.difficulty_pools import DifficultyPools
from services.difficulty.sampler.failed_replay import FailedReplay
from services.difficulty.store import Store
from sluice.v1 import posterior_pb2, rollout_pb2, training_pb2

SIZE = 30_000
NAMES = ("difficulty_pools", "failed_replay", "curriculum_stages")


def tried(accuracies, size=SIZE):
    """A store of so many prompts, the first of them tried twice each, with these accuracies."""
    store = Store(Beta(), batch=256)
    for number in range(size):
        store.add(f"p{number:05}")
    told = partial(rollout_pb2.Verdict, outcome=rollout_pb2.VERDICT_OUTCOME_PARTIAL, purpose=1)
    store.apply_verdicts([told(prompt_id=f"p{at:05}", accuracy=one) for at, one in enumerate(accuracies)] * 2)
    return store


class Counted:
    """A view that counts the prompts of which beliefs are worked out; `whole`: nothing is known of untried ones."""

    def __init__(self, store, whole=False):
        self.view, self.whole, self.looked_at = store.view(np.arange(len(store))), whole, 0

    def __len__(self):
        return len(self.view)

    def __getattr__(self, name):
        return getattr(self.view, name)

    def take(self, rows):
        self.looked_at += len(rows)
        return self.view.take(rows)

    def all(self):
        return self.take(np.arange(len(self)))

    def tried(self, within=np.inf):
        return np.arange(len(self)) if self.whole else self.view.tried(within)


def found(sampler, view, n=250):
    """Places by class."""
    chosen = sampler(view, n, np.random.default_rng(3))
    return np.bincount(sampler.classes(view.view.take(chosen)), minlength=3)


@pytest.mark.parametrize("with_replacement", [False, True])
@pytest.mark.parametrize("count", [0, 50, 200])
@pytest.mark.parametrize("name", NAMES)
def test_a_class_of_tried_prompts_is_not_looked_for_among_the_others(name, count, with_replacement):
    sampler = dataclasses.replace(parts.load("difficulty.sampler", name), with_replacement=with_replacement)
    store = tried([0.0, 1.0] * (count // 2))
    few, every = Counted(store), Counted(store, whole=True)
    places = found(sampler, few), found(sampler, every)
    assert few.looked_at < 3 * sampler.pool < SIZE <= every.looked_at
    assert np.abs(places[0] - places[1]).max() <= (40 if with_replacement else 0)
    assert not count or places[0].min() > 0 or name != "difficulty_pools"


def test_where_the_untried_prompts_are_the_rare_ones_all_are_looked_at():
    view = Counted(tried([0.0] * (SIZE - 200)))
    assert found(DifficultyPools(hard=0.5, easy=0), view).tolist() == [125, 125, 0]
    assert view.looked_at >= SIZE


def test_prompts_that_failed_long_ago_are_not_looked_at_again():
    store = tried([0.0] * 20_000)
    store.apply_step(training_pb2.TrainStep(epoch=1, step=1, version=1))
    assert len(store.view(np.arange(SIZE)).tried(within=50)) == 20_000
    store.apply_step(training_pb2.TrainStep(epoch=1, step=90, version=90))
    view = Counted(store)
    assert found(FailedReplay(), view).tolist() == [250, 0, 0] and view.looked_at <= FailedReplay().pool


@pytest.mark.parametrize("way", ["records", "snapshot", "undo"])
def test_what_was_tried_is_known_again_after(way):
    store = tried([1.0] * 3, size=10)
    if way == "undo":
        store.undo(store.clean())
        assert store.view(np.arange(10)).tried(within=50).tolist() == []
        return
    other = tried([], size=10)
    if way == "records":
        for number in range(3):
            other.from_record(
                posterior_pb2.PosteriorState.FromString(store.to_record(f"p{number:05}").SerializeToString())
            )
    else:
        other.adopt(store.rows, {name: store.columns[name][:10] for name in store.columns.declared}, store.domains)
    assert other.view(np.arange(10)).tried().tolist() == [0, 1, 2]
