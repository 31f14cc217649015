"""Targeted entropy regularization against its worked numbers."""

from __future__ import annotations

import pytest
import torch

from services.learning.likelihood import Forward
from services.learning.regularizer.targeted_entropy import TargetedEntropy
from tests.services.learning.made import lists


def lost(*entropies):
    """The loss and its gradient, for one token of each entropy."""
    batch, part = lists([1] * len(entropies)), TargetedEntropy()
    entropy_NT = torch.tensor(entropies, dtype=torch.float64)[:, None].requires_grad_()
    batch = batch.with_signals(step_entropy=entropy_NT.detach())
    batch = batch.with_signals(**part.over_step(batch))
    loss = part(batch, Forward(torch.zeros_like(entropy_NT), {"entropy": entropy_NT}))
    loss.backward()
    return loss.item(), entropy_NT.grad.flatten().tolist()


@pytest.mark.parametrize(("entropy", "loss", "pull"), [(0.4, 1.5e-4, -1e-3), (0.55, 0.0, 0.0), (0.7, 1.5e-4, 1e-3)])
def test_ter_pulls_entropy_to_its_target_from_both_sides(entropy, loss, pull):
    found, gradient = lost(entropy)
    assert found == pytest.approx(loss, abs=1e-9) and gradient == pytest.approx([pull], abs=1e-9)


def test_ter_the_mean_of_the_step_decides_not_each_token():
    found, gradient = lost(0.1, 0.7, 1.0)
    assert found == pytest.approx(1e-3 * 0.05, abs=1e-9) and gradient == pytest.approx([1e-3 / 3] * 3)
