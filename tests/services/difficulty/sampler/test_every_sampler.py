"""What every sampler owes: distinct or repeated as told, idle prompts first, the same choice from the same seed."""

import dataclasses

import numpy as np
import pytest

from pipeline import parts
from pipeline.errors import UserError
from services.difficulty.estimate.beta import Beta
from services.difficulty.sampler.historical_variance import HistoricalVariance
from services.difficulty.sampler.vspo import Vspo
from services.difficulty.state import Beliefs, History
from services.difficulty.store import Store

NAMES = [name for name in parts.names("difficulty.sampler") if name not in ("uniform", "historical_variance")]


def states(size=60, busy=0, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.random(size)
    history = dataclasses.replace(
        History.none(size),
        last_mean_P=np.where(rng.random(size) < 0.3, np.nan, np.round(p)),
        idle_P=rng.integers(9, size=size).astype(float),
        tally_P=rng.random(size),
        domain_P=rng.integers(3, size=size),
        diversity_P=rng.random(size),
    )
    visits = rng.integers(9, size=size)
    return Beliefs(10 * p, 10 * (1 - p), visits, np.arange(size) < busy, 5, 1, 120, lambda: history, ("a", "b", "c"))


def load(name, **knobs):
    return parts.load("difficulty.sampler", name, **knobs)


@pytest.mark.parametrize("name", NAMES)
def test_choices_are_distinct_and_follow_from_the_seed(name):
    sampler = load(name, with_replacement=False)
    one, same, other = (sampler(states(), 20, np.random.default_rng(s)).tolist() for s in (1, 1, 2))
    assert one == same != other and len(set(one)) == 20
    assert sorted(sampler(states(), 60, np.random.default_rng(0)).tolist()) == list(range(60))


@pytest.mark.parametrize("name", NAMES)
def test_more_distinct_prompts_than_exist_are_refused_and_repeats_are_not(name):
    with pytest.raises(UserError, match="61 distinct prompts were asked for; accepted: 0 to 60"):
        load(name, with_replacement=False)(states(), 61, np.random.default_rng(0))
    repeated = load(name, with_replacement=True)(states(), 200, np.random.default_rng(0))
    assert len(repeated) == 200 and repeated.min() >= 0 and repeated.max() < 60


@pytest.mark.parametrize("name", NAMES)
def test_prompts_in_flight_come_last(name):
    chosen = load(name, with_replacement=False)(states(busy=40), 20, np.random.default_rng(0))
    assert sorted(chosen.tolist()) == list(range(40, 60))


@pytest.mark.parametrize("name", NAMES)
def test_a_uniform_share_of_one_chooses_everything_as_often(name):
    sampler, rng = load(name, uniform_share=1.0, with_replacement=False), np.random.default_rng(0)
    counts = np.bincount(np.concatenate([sampler(states(size=8), 2, rng) for _ in range(600)]), minlength=8)
    assert counts / 1200 == pytest.approx([1 / 8] * 8, abs=0.035)


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_has_a_score(name):
    assert np.isfinite(load(name).score(states())).all() and len(load(name).score(states())) == 60


def test_no_weight_is_above_the_ceiling():
    bounded = [each for each in map(load, NAMES) if hasattr(each, "weight") and each.ceiling is not None]
    assert len(bounded) >= 7
    for sampler in bounded:
        assert 0 < sampler.weight(states(size=2000)).max() <= sampler.ceiling, sampler


def test_equitable_gives_equal_places_at_the_best_split():
    tried, kind = np.array([386.49, 153.38]), np.array([0, 1])
    history = dataclasses.replace(History.none(2), domain_P=kind)
    mean = 1 - tried**-0.5
    some = Beliefs(mean, 1 - mean, tried, kind > 1, known=lambda: history, domains=("a", "b"))
    places = load("equitable", b=0.5, costs={"a": 1.0, "b": 4.0}).places(some)
    assert (1 - mean).sum() == pytest.approx(0.131612, abs=1e-6) and places[0] == pytest.approx(places[1], rel=1e-4)


def test_turns_of_one_prompt_vary_as_its_history():
    store = Store(Beta(), learner=True)
    for history, prompt_id in (([0, 0.5, 1, 0.5], "p"), ([0.5] * 4, "q"), ([0, 0, 0, 1], "r")):
        for number, accuracy in enumerate(history):
            store.step = number
            rows = np.array([store.add(prompt_id)] * 2)
            store.observe(rows, np.full(2, accuracy), np.zeros(2, int), np.zeros(2, int))
    beliefs = store.view(np.arange(3)).all()
    assert HistoricalVariance().score(beliefs) == pytest.approx([0.353553, 0, 0.433013], abs=1e-6)
    assert HistoricalVariance(best=2)(beliefs, 4, np.random.default_rng(0)).tolist() == [2, 0, 2, 0]


def test_a_tally_fades_by_a_tenth_per_step():
    store = Store(Beta(), learner=True)
    for step in (1, 2, 4):
        store.step = step
        store.observe(np.array([store.add("p")]), np.ones(1), np.zeros(1, int), np.zeros(1, int))
    assert store.view(np.arange(1)).all().history.tally_P == pytest.approx([2.539])


def test_a_prompt_tried_lately_is_worth_less_to_vspo():
    rested = states()
    tried = dataclasses.replace(rested, known=lambda: dataclasses.replace(rested.history, tally_P=np.full(60, 3.0)))
    assert Vspo().weight(tried) == pytest.approx(Vspo(smoothing=0).weight(rested) / 2)
