"""TW-GRPO: how far a group disagrees on the next token, and what a token weighs for it."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.recipe import load_recipe
from services.learning.signal.disagreement import Disagreement
from services.learning.trainer import Trainer
from services.learning.weight.tw_grpo import TwGrpo
from tests.services.learning.numbers import batch_of, near, weigh
from tests.services.learning.rollouts import random_groups, tiny_model

FLAT = [0.25] * 4
A = [[0.7, 0.1, 0.1, 0.1], FLAT, [0.97, 0.01, 0.01, 0.01]]
B = [[0.1, 0.7, 0.1, 0.1], FLAT, [0.4, 0.3, 0.2, 0.1]]  # the last place is not there


def two():
    return torch.tensor([A, B], dtype=torch.float64).log(), torch.tensor([[True] * 3, [True, True, False]])


def test_tw_grpo_disagreement_of_two_rollouts_of_unequal_length():
    near(Disagreement().of(*two()), [1.023716, 0, 5.038722])


def test_a_place_that_one_rollout_has_alone_is_not_disagreed_on():
    near(Disagreement(ended="absent").of(*two()), [1.023716, 0, 0])


def test_tw_grpo_token_weights():
    batch = batch_of([[-1.0] * 3, [-1.0] * 2], disagreement=[[1.023716, 0, 5.038722], [1.023716, 0]])
    weight, _ = weigh(TwGrpo(), batch, [[-1.0] * 3, [-1.0] * 2], [1.0, -1.0])
    near(weight, [[1.142219, 1, 1.7], [1.142219, 1, 0]])


def test_a_group_that_agrees_has_weight_one():
    batch = batch_of([[-1.0] * 2], disagreement=[[0.3, 0.3]])
    near(weigh(TwGrpo(), batch, [[-1.0] * 2], [1.0])[0], [[1, 1]])


@pytest.mark.parametrize("seed", range(2))
def test_the_signals_of_a_model_are_those_of_its_logits(seed):
    """Group by group, at the temperature of each token, against a loop over the model's own logits."""
    trainer = Trainer(tiny_model(seed), load_recipe({"base": "tw_grpo", "advantage": "optimal_baseline"}), max_tokens=6)
    batch = trainer._collate(random_groups(seed, groups=3), 3, trainer.world)
    found = trainer._signals(batch).signals
    logits_NTV = trainer._forward(trainer.model, batch, {"logits"}).signals["logits"].detach()
    logp_NTV = (logits_NTV / batch.temperature_NT[..., None]).log_softmax(-1)
    near(found["collision"], (logp_NTV.exp() ** 2).sum(-1).mul(batch.valid_NT).tolist(), 1e-6)
    for g in range(batch.groups):
        rows = [row for row in range(len(batch)) if batch.group_N[row] == g]
        for t in range(int(batch.length_N[rows].max())):
            x = [logp_NTV[r, t] if t < batch.length_N[r] else torch.full((11,), -math.log(11)).double() for r in rows]
            mean = sum(x) / len(x)
            wanted = sum(float(((mean - one).exp() - (mean - one) - 1).sum()) for one in x) / len(x)
            there = [row for row in rows if t < batch.length_N[row]]
            assert found["disagreement"][there, t].tolist() == pytest.approx([wanted] * len(there))
