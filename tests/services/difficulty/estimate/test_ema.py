"""The moving average, and its effective number of observations."""

import numpy as np
import pytest

from services.difficulty.estimate.ema import Ema
from services.difficulty.state import Observation


def test_it_moves_by_its_rate_towards_each_outcome():
    ema = Ema(rate=0.5, prior=0.5)
    stat = ema(ema(ema.initial(), Observation(1.0), 1), Observation(0.0), 1)
    assert stat.values[0] == 0.375


def test_in_the_long_run_it_knows_as_much_as_two_minus_rate_over_rate_outcomes():
    ema, stat = Ema(rate=0.1), Ema().initial()
    for step in range(300):
        stat = ema(stat, Observation(1.0), step)
    alpha_P, beta_P = ema.pseudo_counts(np.array([stat.values]), np.array([0]), 300)
    assert alpha_P[0] + beta_P[0] == pytest.approx(19.0)


def test_a_movement_changes_nothing():
    stat = Ema().initial()
    assert Ema().shifted(stat, 0.1, 3) is stat


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match="accepted: float > 0 and < 1"):
        Ema(rate=rate)
