"""The learning rate of each step."""

from __future__ import annotations

import pytest

from services.learning.optimizer.adamw import Adamw


def test_the_rate_warms_up_and_stays():
    part = Adamw(lr=1.0, warmup_steps=4)
    assert [part.rate(step) for step in (1, 2, 4, 100)] == [0.25, 0.5, 1.0, 1.0]


def test_cosine_ends_at_its_share():
    part = Adamw(lr=2.0, schedule="cosine", decay_steps=10, final=0.1)
    assert part.rate(5) == pytest.approx(2 * (0.1 + 0.9 * 0.5))
    assert part.rate(10) == part.rate(50) == pytest.approx(0.2)


def test_a_rate_below_zero_is_refused():
    with pytest.raises(ValueError, match="lr is -1; accepted: float >= 0"):
        Adamw(lr=-1)
