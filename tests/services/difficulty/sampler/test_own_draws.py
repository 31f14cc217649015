"""With replacement each place has one draw per prompt: who has the lowest key wins as often as among distinct prompts.

A prompt that came twice among a place's candidates would be judged by the better of two draws, and what little is known
of would win too often.
"""

import dataclasses

import numpy as np
import pytest

from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.state import Beliefs
from tests.services.difficulty.sampler.test_every_sampler import NAMES, load

ALPHA, BETA = np.array([1, 2500, 3, 30, 10, 1.0]), np.array([9, 7500, 3, 60, 12, 1.0])
KEYED = [name for name in NAMES if hasattr(load(name), "key")]
VARIANTS = {"target_reward": [{"tau": 0}, {"tau": 0, "thompson": True}, {"tau": 0.1, "thompson": True}]}
DRAWS = 8400


def beliefs(alpha_P, beta_P, busy=()):
    return Beliefs(alpha_P, beta_P, alpha_P, np.isin(np.arange(len(alpha_P)), busy))


def tried():
    assert {"vade_thompson", "target_reward"} <= set(KEYED)
    return [load(name, with_replacement=True, **knobs) for name in KEYED for knobs in VARIANTS.get(name, [{}])]


def true_counts(sampler, some):
    """How often each prompt has the lowest key, every prompt drawn once each time."""
    again = np.tile(np.arange(len(some)), DRAWS)
    key_DP = sampler.key(some.take(again), np.random.default_rng(1)).reshape(DRAWS, -1)
    return np.bincount(key_DP.argmin(axis=1), minlength=len(some))


def found_counts(sampler, some, n):
    rng = np.random.default_rng(2)
    return np.bincount(np.concatenate([sampler(some, n, rng) for _ in range(DRAWS // n)]), minlength=len(some))


def chi_square(one_P, other_P):
    """Of two samples of one distribution; with 5 degrees of freedom 20.5 is passed once in a thousand times."""
    return ((one_P - other_P) ** 2 / np.maximum(one_P + other_P, 1)).sum()


@pytest.mark.parametrize("sampler", tried(), ids=repr)
@pytest.mark.parametrize("n", [4, 700])
def test_every_place_is_won_as_often_as_the_prompts_own_draws_say(sampler, n):
    some = beliefs(ALPHA, BETA)
    assert chi_square(found_counts(sampler, some, n), true_counts(sampler, some)) < 20.5


@pytest.mark.parametrize("sampler", tried(), ids=repr)
def test_places_of_many_keys_are_drawn_in_parts_with_the_same_shares(sampler, monkeypatch):
    monkeypatch.setattr("services.difficulty.sampler._keyed.TOGETHER", 60)
    some = beliefs(ALPHA, BETA)
    assert chi_square(found_counts(sampler, some, 700), true_counts(sampler, some)) < 20.5


@pytest.mark.parametrize("sampler", tried(), ids=repr)
@pytest.mark.parametrize("busy", [[1], [0, 1, 3, 4]])
def test_among_prompts_of_which_some_are_in_flight_the_others_win_as_among_themselves(sampler, busy):
    some, others = beliefs(ALPHA, BETA, busy), np.setdiff1d(np.arange(6), busy)
    found_P = found_counts(sampler, some, 7)
    assert found_P[busy].sum() == 0
    assert chi_square(found_P[others], true_counts(sampler, some.take(others))) < 20.5


def test_a_prompt_of_which_much_is_known_wins_93_times_in_100_against_one_of_which_little_is():
    """Beta(2500, 7500) scores 0.25 * 0.75 ** 2 = 0.1406; a draw of Beta(1, 9) beats that where it is in 0.25 to 0.4243.

    That has chance 0.75 ** 9 - 0.5757 ** 9 = 0.0751 - 0.0069 = 0.068.
    """
    some = beliefs(np.array([2500.0, 1.0]), np.array([7500.0, 9.0]))
    for n in (1, 256):
        found_P = found_counts(VadeThompson(with_replacement=True), some, n)
        assert found_P[1] / found_P.sum() == pytest.approx(0.068, abs=0.01)


def test_a_uniform_share_of_one_is_uniform_also_with_replacement():
    some = beliefs(ALPHA, BETA, busy=[0])
    for sampler in tried():
        found_P = found_counts(dataclasses.replace(sampler, uniform_share=1.0), some, 7)
        assert found_P / DRAWS == pytest.approx([0] + [1 / 5] * 5, abs=0.02)
