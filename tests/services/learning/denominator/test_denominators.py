"""The denominators on one example: rows [1, 2, 3, 4] and [10]."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pipeline.parts import load
from services.learning.collate import collate
from tests.services.learning.rollouts import call, group, member

X = torch.tensor([[1.0, 2, 3, 4], [10, 0, 0, 0]])


@pytest.mark.parametrize(
    ("name", "knobs", "value"),
    [
        ("token_mean", {}, 4.0),
        ("sequence_mean_token_mean", {}, 6.25),
        ("sequence_mean_token_sum", {}, 10.0),
        ("sequence_sum_constant", {"constant": 4}, 2.5),
        ("sequence_sum_constant", {"constant": 4, "per": "step"}, 5.0),
        ("sequence_sum_constant", {}, 1.25),
    ],
)
def test_denominator(name, knobs, value):
    batch = collate([group("g", [member([call([3] * 4)]), member([call([3])])])], 0, max_tokens=8)
    assert float((X * load("learning.denominator", name, **knobs)(batch)).sum()) == pytest.approx(value)


def test_dr_grpo_worked_example():
    losses = torch.tensor([[1.0, 1, 0], [2, 2, 2]])
    batch = collate([group("g", [member([call([3] * 2)]), member([call([3] * 3)])])], 0, max_tokens=3)
    found = [
        float((losses * load("learning.denominator", name, **knobs)(batch)).sum())
        for name, knobs in (
            ("token_mean", {}),
            ("sequence_mean_token_sum", {}),
            ("sequence_mean_token_mean", {}),
            ("sequence_sum_constant", {"per": "step"}),
            ("sequence_sum_constant", {"per": "rollout"}),
        )
    ]
    assert found == pytest.approx([1.6, 4.0, 1.5, 2.666667, 1.333333], abs=1e-5)


def test_denominators_are_of_the_whole_step_not_of_the_micro_batch():
    batch = collate([group("g", [member([call([3] * 4)]), member([call([3])])])], 0, max_tokens=8)
    part = dataclasses.replace(batch.rows([1]))
    assert float(load("learning.denominator", "token_mean")(part)) == pytest.approx(1 / 5)
