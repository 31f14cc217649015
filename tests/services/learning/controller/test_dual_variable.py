"""HC-RLHF: the price of a cost, and what a rollout pays."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.recipe import load_recipe
from services.learning import checkpoint
from services.learning.advantage.group_norm import GroupNorm
from services.learning.controller.dual_variable import DualVariable
from services.learning.reward.constrained import Constrained, margin
from services.learning.student import cdf, quantile
from services.learning.trainer import Trainer
from tests.services.learning.made import lists, vector
from tests.services.learning.numbers import near
from tests.services.learning.rollouts import call, group, member, tiny_model, with_fields

COSTS = [-1.2, 0.3, -0.8, -0.5, -1.0, 0.1, -0.6, -0.9]
PRICES = [-1.169300, 0.522574, -0.943266, -0.666291, -1.076750, 0.163958, -0.768849, -1.015125]


def test_hc_rlhf_margin_from_student_quantiles():
    assert quantile(0.9, 7) == pytest.approx(1.414924, abs=1e-6)
    assert quantile(0.9, 999) == pytest.approx(1.282400, abs=1e-6)
    assert quantile(0.9, 9) == pytest.approx(1.38303, abs=1e-5) and quantile(0.9, 4) == pytest.approx(1.53321, abs=1e-5)
    assert margin(8, 1000, 0.1, 1.0, 1.0) == pytest.approx(0.540804, abs=1e-6)
    assert quantile(0.1, 4) == pytest.approx(-quantile(0.9, 4)) and cdf(0.0, 5) == 0.5


def test_hc_rlhf_augmented_costs():
    batch = lists(COSTS, raw={"cost": COSTS})
    near(Constrained().price(batch), PRICES)


def test_hc_rlhf_coefficients_of_four_returns():
    batch = with_fields(lists([1, 0.5, 0.2, 0.9]), reward_N=vector([1, 0.5, 0.2, 0.9]) - vector(PRICES[:4]))
    near(GroupNorm(center="mean", scale="none")(batch) / 3, [0.318410, -0.412215, -0.023602, 0.117407])


def test_a_rollout_pays_the_price_of_its_cost():
    batch = lists(COSTS, raw={"cost": COSTS})
    reward_N = torch.ones(8, dtype=torch.float64)
    near(Constrained()(batch, reward_N), [1 - price for price in PRICES])
    doubled = batch.with_signals(dual=torch.full((8,), 2.0, dtype=torch.float64))
    near(Constrained()(doubled, 60 * reward_N), [50 - 2 * price for price in PRICES])


def test_rollouts_without_a_cost_pay_nothing_and_one_cost_is_taken_as_it_is():
    batch = lists([1, 0], raw={"cost": [0.5, float("nan")]})
    near(Constrained().price(batch), [0.5, 0.0])
    near(Constrained().price(lists([1, 0])), [0.0, 0.0])


def test_hc_rlhf_multiplier_falls_where_the_bound_is_below_the_threshold():
    running = DualVariable().open()
    _, told = running.after_step(lists(COSTS, raw={"cost": COSTS}), None)
    assert told["cost_bound"] == pytest.approx(-0.289199, abs=1e-6)
    assert told["dual"] == pytest.approx(0.997112, abs=1e-6) == running.before_step()["dual"]


def test_the_multiplier_rises_while_costs_are_high_up_to_its_cap_and_the_window_slides():
    running = DualVariable(lr=1.0, most=3.0, window=4).open()
    assert running.after_step(lists([1], raw={"cost": [1.0]}), None) == ([], {}) and running.log == 0
    for _ in range(3):
        running.after_step(lists([1, 0], raw={"cost": [1.0, 1.0]}), None)
    assert running.log == pytest.approx(math.log(3.0)) and running.costs == [1.0] * 4


def costly(cost):
    return group("g", [member([call([3, 4])], i % 2, index=i, rewards={"cost": cost + i / 10}) for i in range(4)])


def test_a_run_pays_more_after_costly_steps_and_goes_on_so_from_its_checkpoint(tmp_path):
    one, other = (Trainer(tiny_model(seed), load_recipe("hc_rlhf"), max_tokens=6) for seed in (0, 9))
    results = [one.step([costly(1.0)], version) for version in (1, 2)]
    assert results[1].metrics["dual"] > results[0].metrics["dual"] > 1
    saved = checkpoint.save(tmp_path, 1, 2, one.state())
    other.load_state(checkpoint.load(tmp_path, saved.name, saved.sha256))
    assert one.step([costly(1.0)], 3).metrics == other.step([costly(1.0)], 3).metrics
