"""What `avoid_busy` says is done, by every sampler that has it: among few prompts and many, once or again and again."""

import dataclasses
from itertools import product

import numpy as np
import pytest

from pipeline import parts
from services.difficulty.sampler import _weighted
from tests.services.difficulty.sampler.test_every_sampler import load, states

NAMES = [name for name in parts.names("difficulty.sampler") if hasattr(load(name), "avoid_busy")]
VARIANTS = {"target_reward": [{}, {"tau": 0}, {"thompson": True}], "mmr1_vps": [{}, {"min_max": True}]}
TRIED = [(name, knobs) for name in NAMES for knobs in VARIANTS.get(name, [{}])]
FEW, MANY = 60, 600

every = pytest.mark.parametrize(("name", "knobs"), TRIED)


@pytest.fixture(autouse=True)
def not_all_are_looked_at(monkeypatch):
    monkeypatch.setattr(_weighted, "FULL", 100)
    monkeypatch.setattr(_weighted, "CHUNK", 50)


def ways(name, knobs, avoid_busy, again=(False, True)):
    """The sampler once or again and again, without and with a share at random, of few prompts and of many.

    With a pool of 100 where it has one: among `MANY` it looks at some.
    """
    pool = {"pool": 100} if hasattr(load(name), "pool") else {}
    for with_replacement, uniform_share, size in product(again, (0.0, 0.5), (FEW, MANY)):
        yield (
            size,
            load(
                name,
                **pool,
                **knobs,
                avoid_busy=avoid_busy,
                with_replacement=with_replacement,
                uniform_share=uniform_share,
            ),
        )


def chosen(sampler, size, busy, n, seed=3):
    found = sampler(states(size=size, busy=busy), n, np.random.default_rng(seed)).tolist()
    assert len(found) == n and (sampler.with_replacement or len(set(found)) == n)
    return found


def test_all_samplers_but_two_can_avoid_what_is_in_flight():
    assert set(parts.names("difficulty.sampler")) - set(NAMES) == {"uniform", "historical_variance"}


@every
@pytest.mark.parametrize("idle", [0.05, 0.5, 0.9])
def test_prompts_in_flight_are_not_chosen_while_there_are_others(name, knobs, idle):
    for size, sampler in ways(name, knobs, avoid_busy=True):
        others = round(idle * size)
        for n in (1, others, *([3 * others] if sampler.with_replacement else [])):
            for seed in range(3):
                assert min(chosen(sampler, size, size - others, n, seed)) >= size - others, sampler


@every
def test_without_replacement_those_in_flight_come_after_all_others(name, knobs):
    for size, sampler in ways(name, knobs, avoid_busy=True, again=[False]):
        others = size // 3
        assert set(chosen(sampler, size, size - others, others + 7)) > set(range(size - others, size)), sampler


@every
def test_a_sampler_that_does_not_avoid_them_chooses_as_if_none_were_in_flight(name, knobs):
    for size, sampler in ways(name, knobs, avoid_busy=False):
        one, other, all_busy = (chosen(sampler, size, busy, 20) for busy in (0, size // 2, size))
        assert one == other == all_busy, sampler


@every
def test_where_all_are_in_flight_the_choice_is_as_if_none_were(name, knobs):
    for size, sampler in ways(name, knobs, avoid_busy=True):
        found = chosen(sampler, size, size, 20)
        assert size == MANY or found == chosen(sampler, size, 0, 20), sampler


def test_classes_keep_their_shares_among_prompts_that_are_not_avoided_though_in_flight():
    sampler = load("domain_mixture", shares={"a": 3, "b": 1}, rest=0.0, avoid_busy=False)
    some = states(size=MANY)
    in_flight = dataclasses.replace(some, busy_P=some.history.domain_P == 0)
    found = sampler(in_flight, 40, np.random.default_rng(0))
    assert np.bincount(some.history.domain_P[found], minlength=3).tolist() == [30, 10, 0]
