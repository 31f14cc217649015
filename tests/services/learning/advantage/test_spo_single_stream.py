"""SPO's advantage against its worked number."""

from __future__ import annotations

import torch

from services.learning.advantage.spo_single_stream import SpoSingleStream
from tests.services.learning.rollouts import rewarded, with_fields


def test_spo_subtracts_the_belief_and_normalises_over_the_step():
    batch = rewarded([1], [0], [1], [1])
    batch = with_fields(batch, belief_N=torch.tensor([0.2, 0.5, 0.9, 0.5], dtype=torch.float64))
    wanted = torch.tensor([1.023149, -1.290057, -0.222424, 0.489332], dtype=torch.float64)
    torch.testing.assert_close(SpoSingleStream()(batch), wanted, atol=1e-6, rtol=0)


def test_spo_gives_zero_where_every_surprise_is_equal():
    batch = with_fields(rewarded([1], [1]), belief_N=torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert SpoSingleStream()(batch).tolist() == [0.0, 0.0]


def test_spo_uses_the_prior_for_a_prompt_that_nothing_is_believed_of():
    batch = rewarded([1], [0])
    found = SpoSingleStream(prior=0.5, ddof=0)(batch)
    torch.testing.assert_close(found, torch.tensor([1.0, -1.0], dtype=torch.float64), atol=1e-6, rtol=0)
