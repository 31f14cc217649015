"""Classes of prompts have their shares, also where places come a few at a time, as they do in a stream."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.difficulty.sampler._quota import apportioned
from services.difficulty.sampler.historical_variance import HistoricalVariance
from services.difficulty.state import Beliefs, History
from tests.services.difficulty.sampler.test_every_sampler import NAMES, load, states

QUOTAS = {
    "domain_mixture": {"shares": {"a": 3, "b": 1}, "rest": 0.0},
    "difficulty_pools": {"hard": 0.1, "normal": 0.2, "easy": 0.7},
    "curriculum_stages": {},
    "equitable": {"costs": {"a": 9.0}},
    "failed_replay": {"share": 0.25},
}
SHARES = st.lists(st.floats(0, 10), min_size=1, max_size=6).filter(lambda shares: sum(shares) > 1e-3)


def share_of(sampler, some):
    return sampler.places(some) / sampler.places(some).sum()


def classes_of(sampler, some, chosen):
    return np.bincount(sampler.classes(some)[chosen], minlength=len(sampler.places(some)))


def test_every_sampler_with_classes_is_tried_here():
    assert set(QUOTAS) == {name for name in NAMES if hasattr(load(name), "classes")}


@pytest.mark.parametrize("with_replacement", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("name", QUOTAS)
def test_classes_have_their_shares_however_few_places_a_choice_has(name, n, with_replacement):
    sampler, some = load(name, with_replacement=with_replacement, **QUOTAS[name]), states(size=300)
    rng, exact_C, choices = np.random.default_rng(n), n * share_of(sampler, some), 800
    found_SC = np.array([classes_of(sampler, some, sampler(some, n, rng)) for _ in range(choices)])
    assert np.abs(found_SC - exact_C).max() < 1  # every choice: within one place of the exact number
    assert found_SC.mean(axis=0) == pytest.approx(exact_C, abs=4 * 0.5 / choices**0.5)  # 4 standard deviations


@given(SHARES, st.integers(0, 300), st.floats(0, 1, exclude_max=True))
def test_places_are_all_given_and_each_class_has_its_exact_number_rounded_down_or_up(shares, n, offset):
    share_C = np.array(shares)
    places_C = apportioned(share_C, n, offset)
    assert places_C.sum() == n and (places_C[share_C == 0] == 0).all()
    assert (np.abs(places_C - n * share_C / share_C.sum()) < 1 + 1e-6).all()


@given(SHARES, st.integers(0, 20))
def test_over_all_offsets_each_class_has_exactly_its_share(shares, n):
    offsets = (np.arange(100) + 0.5) / 100
    mean_C = np.mean([apportioned(np.array(shares), n, offset) for offset in offsets], axis=0)
    assert mean_C == pytest.approx(n * np.array(shares) / sum(shares), abs=2 / 100)


@pytest.mark.parametrize("name", QUOTAS)
@pytest.mark.parametrize("pool", [32768, 500])
def test_with_replacement_every_class_has_its_share_of_the_places(name, pool):
    sampler, some = load(name, with_replacement=True, pool=pool, **QUOTAS[name]), states(size=2000)
    chosen = np.concatenate([sampler(some, 400, np.random.default_rng(seed)) for seed in range(20)])
    found_C = classes_of(sampler, some, chosen) / len(chosen)
    assert found_C == pytest.approx(share_of(sampler, some), abs=0.03) and len(set(chosen.tolist())) > 500


def test_with_replacement_the_places_of_a_class_without_prompts_go_to_any():
    sampler = load("domain_mixture", with_replacement=True, shares={"a": 1, "d": 1}, rest=0.0)
    some = dataclasses.replace(states(size=2000), domains=("a", "b", "c", "d"))
    found = np.bincount(some.history.domain_P[sampler(some, 6000, np.random.default_rng(0))]) / 6000
    assert found == pytest.approx([2 / 3, 1 / 6, 1 / 6], abs=0.03)


@pytest.mark.parametrize("bite", [1, 3, 4])
def test_the_most_variable_prompts_are_chosen_equally_often_whatever_the_bites(bite):
    one_P, drawn = np.ones(6), []
    history = dataclasses.replace(History.none(6), variance_P=np.array([0, 0.3, 0, 0.2, 0.1, 0.4]))
    while len(drawn) < 12:
        some = Beliefs(one_P, one_P, one_P, one_P > 1, len(drawn), known=lambda: history)
        drawn += HistoricalVariance(best=4)(some, bite, np.random.default_rng(0)).tolist()
    assert drawn == [5, 1, 3, 4] * 3
