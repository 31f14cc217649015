"""Every shipped recipe learns: thirty steps on a tiny model raise right over wrong answers that it never saw."""

from __future__ import annotations

import math

import pytest

from pipeline.recipe import load_recipe, shipped
from tests.services.learning.learning_world import OnLine

RISEN = 0.02
"""Nats by which the gap between right and wrong answers must have grown."""
GUESSES = [name for name in shipped() if load_recipe(name).confidence == "guess"]
METHODS = [name for name in shipped() if name not in GUESSES]
TEN = METHODS[:: max(1, len(METHODS) // 10)][:10]
SEEDS = (0, 1, 2)


@pytest.mark.parametrize("name", TEN)
def test_a_recipe_learns(name):
    assert OnLine(name, seed=0).run() > RISEN


@pytest.mark.parametrize("name", TEN[:2])
def test_a_recipe_with_its_advantage_turned_does_not_learn(name):
    assert not OnLine(name, seed=0, flip=True).run() > RISEN


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", METHODS)
def test_every_recipe_learns(name, seed):
    assert OnLine(name, seed).run() > RISEN
    assert not OnLine(name, seed, flip=True).run() > RISEN


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", GUESSES)
def test_every_recipe_that_is_a_guess_runs(name, seed):
    assert math.isfinite(OnLine(name, seed).run())
