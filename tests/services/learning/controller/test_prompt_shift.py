"""How far a prompt's policy moved, on its previous trajectory after the update."""

from __future__ import annotations

import pytest

from services.learning.controller.prompt_shift import PromptShift
from services.learning.likelihood import Forward
from tests.services.learning.numbers import batch_of, ragged


def test_the_shift_is_the_mean_move_of_stored_log_probs():
    running, batch = PromptShift().open(), batch_of([[-1.0, -1.0]])
    assert running.after_step(batch, lambda other: Forward(ragged([[-1.0, -2.0]]))) == ([], {})
    (shift,), _ = running.after_step(batch, lambda other: Forward(ragged([[-1.1, -1.8]])))
    assert shift.prompt_id == "p" and shift.mean_abs_logprob_change == pytest.approx(0.15)
