"""Choosing among many without looking at all: the same distribution as the full draw, by a chi-square test."""

import dataclasses

import numpy as np
import pytest

from services.difficulty.sampler import _weighted
from services.difficulty.sampler.cures import Cures
from services.difficulty.sampler.domain_mixture import DomainMixture
from services.difficulty.sampler.spo_prioritised import SpoPrioritised
from services.difficulty.sampler.target_reward import TargetReward
from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.state import Beliefs, History

SIZE, N, TURNS = 40_000, 64, 150
KINDS = np.array([(1, 30), (2, 20), (4, 8), (1, 1), (8, 4), (30, 1)], float)


def states(busy=0, size=SIZE):
    kind_P = np.random.default_rng(1).integers(len(KINDS), size=size)
    alpha_P, beta_P = KINDS[kind_P].T
    return kind_P, Beliefs(alpha_P, beta_P, alpha_P, np.arange(size) < busy)


def counts(sampler, kind_P, some, seed, turns=TURNS):
    rng = np.random.default_rng(seed)
    chosen = [sampler(some, N, rng) for _ in range(turns)]
    assert sampler.with_replacement or all(len(set(each.tolist())) == N for each in chosen)
    return np.bincount(kind_P[np.concatenate(chosen)], minlength=len(KINDS))


def chi_square(one, other):
    """Of two samples of one distribution; with 5 degrees of freedom 20.5 is passed once in a thousand times."""
    total = one + other
    return (((one - other) ** 2) / np.maximum(total, 1)).sum()


@pytest.mark.parametrize("with_replacement", [False, True])
@pytest.mark.parametrize("sampler", [SpoPrioritised(), SpoPrioritised(uniform_share=0.3), Cures()])
def test_chunks_choose_as_the_full_draw_does(sampler, with_replacement, monkeypatch):
    sampler = dataclasses.replace(sampler, with_replacement=with_replacement)
    kind_P, some = states()
    chunked = counts(sampler, kind_P, some, 0)
    monkeypatch.setattr(_weighted, "FULL", SIZE)
    assert chi_square(chunked, counts(sampler, kind_P, some, 1)) < 20.5


def test_a_pool_chooses_as_the_full_draw_does():
    kind_P, some = states()
    pooled, full = (counts(VadeThompson(pool=pool), kind_P, some, pool) for pool in (8192, 0))
    assert chi_square(pooled, full) < 20.5


@pytest.mark.parametrize("sampler", [VadeThompson(), TargetReward(thompson=True), TargetReward(thompson=True, tau=0)])
def test_with_replacement_each_places_own_candidates_choose_as_all_do(sampler):
    kind_P, some = states(size=4000)
    drawn = [dataclasses.replace(sampler, with_replacement=True, pool=pool) for pool in (1000, 0)]
    few, full = (counts(each, kind_P, some, each.pool, turns=40) for each in drawn)
    assert chi_square(few, full) < 20.5


@pytest.mark.parametrize("with_replacement", [False, True])
def test_a_class_that_is_rare_among_the_candidates_has_its_places_all_the_same(with_replacement):
    size, rare = 100_000, 100
    domain_P = np.zeros(size, int)
    domain_P[::1000] = 1
    ones_P = np.ones(size)
    history = dataclasses.replace(History.none(size), domain_P=domain_P)
    some = Beliefs(ones_P, ones_P, ones_P, ones_P > 1, known=lambda: history, domains=("much", "rare"))
    sampler = DomainMixture(shares={"much": 0.9, "rare": 0.1}, with_replacement=with_replacement)
    assert domain_P.sum() == rare and sampler.pool < size
    found = [domain_P[sampler(some, 250, np.random.default_rng(seed))].sum() for seed in range(8)]
    assert found == [25] * 8 if not with_replacement else 15 < np.mean(found) < 35


def test_the_test_would_notice_another_distribution():
    kind_P, some = states()
    assert chi_square(counts(SpoPrioritised(), kind_P, some, 0), counts(Cures(), kind_P, some, 1)) > 20.5


def test_rare_weights_are_found_all_the_same():
    alpha_P = np.zeros(SIZE)
    alpha_P[:30] = 5.0
    some = Beliefs(alpha_P, 5 * np.ones(SIZE), alpha_P, alpha_P > 9)
    assert set(range(30)) < set(SpoPrioritised(floor=0)(some, 40, np.random.default_rng(0)).tolist())


def test_among_many_prompts_in_flight_come_last_too():
    _, some = states(busy=SIZE // 3)
    assert SpoPrioritised()(some, N, np.random.default_rng(0)).min() >= SIZE // 3


def test_with_replacement_chunks_may_repeat():
    _, some = states()
    chosen = SpoPrioritised(with_replacement=True)(some, 20_000, np.random.default_rng(0))
    assert len(chosen) == 20_000 > len(set(chosen.tolist()))
