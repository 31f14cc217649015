"""D3S: the rollouts whose advantages vary most."""

import itertools

import pytest
import torch

from services.learning.select.d3s_rollouts import D3sRollouts
from tests.services.learning.rollouts import rewarded


def test_d3s_worked_example():
    advantage = torch.tensor([-1.5, -0.5, -0.5, 0.2, 0.8, 1.5], dtype=torch.float64)
    keep = D3sRollouts.most_spread(advantage, 4)
    assert keep.nonzero().flatten().tolist() == [0, 1, 4, 5]
    assert float(advantage[keep].var(correction=0)) == pytest.approx(1.341875)


@pytest.mark.parametrize("n", range(1, 8))
def test_the_split_is_the_best_of_all_subsets(n):
    advantage = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    best = max(float(advantage[list(rows)].var(correction=0)) for rows in itertools.combinations(range(8), n))
    assert float(advantage[D3sRollouts.most_spread(advantage, n)].var(correction=0)) == pytest.approx(best)


def test_the_share_relaxes_and_equal_advantages_keep_as_many():
    part = D3sRollouts(share=0.5, final=1.0, steps=10)
    assert [part.now(version) for version in (1, 6, 11, 99)] == [0.5, 0.75, 1.0, 1.0]
    batch = rewarded([1, 1, 1, 1]).with_signals(advantage=torch.zeros(4, dtype=torch.float64))
    assert D3sRollouts(share=0.5)(batch).sum() == 2
