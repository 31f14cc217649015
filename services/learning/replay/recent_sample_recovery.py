"""What a step has no place for is first in the next: recent sample recovery.

    B_c: groups that differ in accuracy, in the order in which they came;  |B_c| >= N: train on the first N,
    carry B_c[N:] over, in front of what comes next

Source: Confucius3-Math, technical report, section 6.2 and Algorithm 1 (N = 256). It states no correction: in its recipe
the ratio is taken to the policy at the start of the step, so that it starts at 1.
Odd cases: more may be carried than one step takes: it is consumed over several, until it passes the run's `max_lag`,
which the paper does not bound. A group is trained on once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.knobs import check, knob
from services.learning.replay import Choice, Held


@dataclass(frozen=True)
class RecentSampleRecovery:
    """N = 3, arrivals 2, 2, 4: step 1 trains g1 g2 g3 and carries g4; step 2 trains g4 g5 g6 and carries g7 g8."""

    max_age: int | None = knob(None, "most versions that a group may wait; None: the run's max_lag", ge=0)

    __post_init__ = check

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """See `Replay.choose`. Pure; in arrival order."""
        oldest = max_lag if self.max_age is None else min(max_lag, self.max_age)
        retired = tuple(held for held in buffer if held.uses)
        stale = tuple(held for held in buffer if not held.uses and held.group.lag(version) > oldest)
        gone = {id(held) for held in (*retired, *stale)}
        left = tuple(held for held in buffer if id(held) not in gone)
        full = len(left) >= batch_groups
        return Choice(left[:batch_groups] if full else (), left[batch_groups:] if full else left, stale, retired)
