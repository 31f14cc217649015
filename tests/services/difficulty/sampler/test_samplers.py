"""The samplers: worked numbers, distinct prompts, the same choice from the same seed."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import parts
from pipeline.errors import UserError
from services.difficulty.sampler.spo_prioritised import SpoPrioritised
from services.difficulty.sampler.uniform import Uniform
from services.difficulty.sampler.vade_thompson import VadeThompson
from services.difficulty.state import Beliefs

DISTINCT = [VadeThompson(), VadeThompson(uniform_share=0.5), SpoPrioritised(), SpoPrioritised(floor=0, uniform_share=1)]


def states(alpha, beta, busy=(), drawn=0, seed=0):
    alpha, beta = np.array(alpha, float), np.array(beta, float)
    busy_P = np.isin(np.arange(len(alpha)), busy)
    return Beliefs(alpha, beta, np.ones(len(alpha), int), busy_P, drawn, seed)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_uniform_takes_every_prompt_once_per_pass_whatever_the_bites():
    ones, taken = [1] * 7, []
    for bite in (3, 5, 1, 5):
        taken += Uniform()(states(ones, ones, drawn=len(taken), seed=4), bite, rng()).tolist()
    assert sorted(taken[:7]) == sorted(taken[7:]) == list(range(7))
    assert taken[:7] != taken[7:]


def test_uniform_gives_more_passes_when_more_prompts_are_asked_for_than_exist():
    assert sorted(Uniform()(states([1], [1]), 3, rng()).tolist()) == [0, 0, 0]


def test_uniform_chooses_the_same_in_one_bite_of_many_passes_as_one_by_one():
    ones = [1] * 7
    one_by_one = [int(Uniform()(states(ones, ones, drawn=place), 1, rng())[0]) for place in range(5, 45)]
    assert Uniform()(states(ones, ones, drawn=5), 40, rng()).tolist() == one_by_one
    assert Uniform()(states(ones, ones, drawn=5), 0, rng()).tolist() == []


def test_uniform_costs_what_its_passes_cost():
    size, passes = 100, 4000
    begun = time.process_time()
    orders = [np.random.default_rng([9, index]).permutation(size) for index in range(passes)]
    drawn = time.process_time()
    chosen = Uniform()(states([1] * size, [1] * size, seed=9), size * passes, rng())
    assert time.process_time() - drawn < 10 * (drawn - begun)
    assert (chosen == np.concatenate(orders)).all()


def test_uniform_order_follows_from_the_seed():
    ones = [1] * 50
    first, again, other = (Uniform()(states(ones, ones, seed=s), 50, rng(s)).tolist() for s in (1, 1, 2))
    assert first == again != other


def test_uniform_with_replacement_draws_from_all():
    drawn = Uniform(with_replacement=True)(states([1] * 3, [1] * 3), 300, rng())
    assert set(drawn.tolist()) == {0, 1, 2} and np.bincount(drawn).min() > 70


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(UserError, match="there are none"):
        Uniform()(states([], []), 1, rng())


def test_vade_takes_the_two_best_draws_of_the_worked_number():
    assert VadeThompson()(states([1, 3, 9, 5], [9, 3, 1, 5]), 2, rng()).tolist() == [1, 2]


def test_vade_expected_score_is_the_mean_of_its_draws():
    score = VadeThompson().score(states([1, 3, 9, 5], [9, 3, 1, 5]))
    theta = rng(1).beta([1, 3, 9, 5], [9, 3, 1, 5], size=(200_000, 4))
    assert score == pytest.approx((theta * (1 - theta) ** 2).mean(axis=0), abs=1e-3)


def test_vade_leaves_solved_and_hopeless_prompts_alone():
    chosen = VadeThompson()(states([900, 1, 30, 40], [1, 900, 60, 60]), 2, rng())
    assert sorted(chosen.tolist()) == [2, 3]


def test_spo_weights_are_the_papers_with_and_without_evidence():
    v, n = np.array([0.2, 0.5, 0.9, 0.5]), np.array([8, 8, 20, 20])
    some = states(n * v, n * (1 - v))
    assert SpoPrioritised().score(some) == pytest.approx([0.236842, 0.289474, 0.184211, 0.289474], abs=1e-6)
    assert SpoPrioritised(gamma=0.5).score(some) == pytest.approx([0.274603, 0.325322, 0.167960, 0.232115], abs=1e-6)


def test_spo_draws_the_first_prompt_in_proportion_to_its_weight():
    some, generator = states([2, 5, 9, 5], [8, 5, 1, 5]), rng(3)
    first = [SpoPrioritised()(some, 2, generator)[0] for _ in range(20_000)]
    assert np.bincount(first) / 20_000 == pytest.approx(SpoPrioritised().score(some), abs=0.015)


def test_spo_without_any_weight_is_uniform():
    sure = states([1, 1, 1], [0, 0, 0])
    assert SpoPrioritised(floor=0).score(sure).tolist() == pytest.approx([1 / 3] * 3)
    assert sorted(SpoPrioritised(floor=0)(sure, 3, rng()).tolist()) == [0, 1, 2]


def test_spo_with_replacement_may_ask_for_more_than_there_are():
    assert len(SpoPrioritised(with_replacement=True)(states([1, 2], [1, 2]), 9, rng())) == 9


@pytest.mark.parametrize("sampler", DISTINCT)
def test_more_distinct_prompts_than_exist_are_refused(sampler):
    with pytest.raises(UserError, match="3 distinct prompts were asked for; accepted: 0 to 2"):
        sampler(states([1, 2], [1, 2]), 3, rng())


@pytest.mark.parametrize("sampler", [VadeThompson(), SpoPrioritised()])
def test_prompts_in_flight_come_last(sampler):
    some = states([1] * 6, [1] * 6, busy=[0, 1, 2, 3])
    assert set(sampler(some, 2, rng()).tolist()) == {4, 5}
    assert set(sampler(some, 4, rng()).tolist()) > {4, 5}


def test_a_uniform_share_of_one_is_uniform_over_all_prompts():
    some, generator = states([900, 1, 30], [1, 900, 60]), rng(5)
    counts = np.bincount([VadeThompson(uniform_share=1.0)(some, 1, generator)[0] for _ in range(3000)])
    assert counts / 3000 == pytest.approx([1 / 3] * 3, abs=0.04)


@given(st.lists(st.tuples(st.floats(0.01, 50), st.floats(0.01, 50), st.booleans()), max_size=30), st.data())
def test_choices_are_distinct_and_follow_from_the_generator(rows, data):
    busy = [i for i, row in enumerate(rows) if row[2]]
    some = states([row[0] for row in rows], [row[1] for row in rows], busy)
    n, seed = data.draw(st.integers(0, len(rows))), data.draw(st.integers(0, 9))
    for sampler in DISTINCT:
        chosen = sampler(some, n, rng(seed)).tolist()
        assert len(set(chosen)) == len(chosen) == n
        assert chosen == sampler(some, n, rng(seed)).tolist()


def test_a_share_out_of_range_is_refused_with_the_part_and_the_value():
    with pytest.raises(UserError, match="uniform_share is 1.5; accepted: float >= 0 and <= 1"):
        parts.load("difficulty.sampler", "vade_thompson", uniform_share=1.5)
