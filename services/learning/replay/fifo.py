"""Oldest policy first, then first in, first out, with a hard bound on staleness, and reuse within bounds of its own.

Among groups that wait, those with the oldest token go first: while new weights are on their way to a worker it samples
from the version before, and those groups would be the ones to pass the bound.

At first use a group whose oldest token is more than `max_lag` versions old is stale: dropped, never trained on. With
`max_uses` above 1 a group goes back to the buffer after its use and fills up later batches behind the fresh groups,
while it is at most `reuse_max_lag` versions old. At least 1/max_uses of every batch is fresh, so that the learner never
runs on what it has seen alone. Reuse is always corrected: its importance weights come from the recorded log-probs.

Source: the staleness bound of AReaL, arXiv:2505.24298; reuse as in the replay buffers of off-policy actor-critic.
Odd case: a group without a token has lag 0 and is never stale.

    max_lag 2, version 7: a group with tokens of versions 5 and 6 has lag 2 and is used; one with a token of 4 is stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.knobs import check, knob
from services.learning.replay import Choice, Held
from services.learning.replay._choosing import sort


@dataclass(frozen=True)
class Fifo:
    """
    >>> Fifo().choose([], version=1, batch_groups=2, max_lag=2)
    Choice(batch=(), kept=(), stale=(), retired=(), refilled=())
    """

    max_uses: int = knob(
        1, "how often a group may be trained on; 1 is no reuse, as in every paper without replay", ge=1
    )
    reuse_max_lag: int = knob(4, "most versions between a reused group's oldest token and the version trained", ge=0)

    __post_init__ = check

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """See `Replay.choose`. Pure; keeps the buffer's order."""
        found = sort(buffer, version, max_lag, self.max_uses, self.reuse_max_lag)
        least_fresh = -(-batch_groups // self.max_uses)
        enough = len(found.fresh) >= least_fresh and len(found.fresh) + len(found.used) >= batch_groups
        return found.choice((found.fresh + found.used)[:batch_groups] if enough else ())
