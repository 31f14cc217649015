"""A curriculum by stage: easy prompts first, then medium, then hard, with a share of what came before.

    stage t = min(step // steps_per_stage, 2);   1 - replay of each batch from stage t, replay from the earlier ones

Source: CRAFT-GUI's abstract (difficulty-ordered GRPO); stages by success of the model and a replay share of 20 % are a
guess. A prompt's stage is told from its posterior mean: easy from `easy_above`, hard below `hard_below`.

Odd cases. In the first stage nothing came before: all places are easy ones. What a stage lacks goes to the others at
random. Of more than `pool` prompts the stages are those of that many candidates at random, and where one lacks there,
of all that were tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.difficulty.sampler import _quota
from services.difficulty.state import Beliefs, States


@dataclass(frozen=True)
class CurriculumStages(_quota.ByQuota):
    """Easy, then medium, then hard.

    Worked number: in the second stage, of 10 places 8 are medium and 2 easy.

    >>> CurriculumStages().shares(step=150).tolist()
    [0.2, 0.8, 0.0]
    >>> CurriculumStages().shares(step=999).tolist()
    [0.1, 0.1, 0.8]
    """

    steps_per_stage: int = knob(100, "Length of a stage.", unit="steps", ge=1)
    easy_above: float = knob(0.6, "Mean from which a prompt is easy.", ge=0, le=1)
    hard_below: float = knob(0.3, "Mean below which a prompt is hard.", ge=0, le=1)
    replay: float = knob(0.2, "Share of earlier stages. A guess.", ge=0, lt=1)
    uniform_share: float = knob(0.0, "Chance that a place goes to a prompt at random.", ge=0, le=1)
    with_replacement: bool = knob(False, "May a prompt be chosen twice in one call.")
    avoid_busy: bool = knob(True, "Choose prompts without rollouts in flight first.")
    pool: int = knob(8192, "Candidates at random, and all tried where a class lacks among them; 0: all.", ge=0)

    confidence: ClassVar[str] = "guess"
    __post_init__ = check

    def classes(self, states: Beliefs) -> np.ndarray:
        """0 easy, 1 medium, 2 hard."""
        mean_P = states.mean_P
        return np.where(mean_P >= self.easy_above, 0, np.where(mean_P < self.hard_below, 2, 1))

    def shares(self, step: int) -> np.ndarray:
        """Share of each stage in a batch at `step`."""
        now = min(step // self.steps_per_stage, 2)
        if now == 0:
            return np.array([1.0, 0.0, 0.0])
        return np.array([self.replay / now] * now + [1 - self.replay] + [0.0] * (2 - now))

    def apart(self, states: States) -> np.ndarray:
        """What was never tried has the prior's stage."""
        return states.tried()

    def places(self, states: Beliefs) -> np.ndarray:
        """Share of each stage now."""
        return self.shares(states.step)
