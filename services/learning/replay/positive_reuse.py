"""Groups with a right answer are used again, the newest and least used first.

    priority(group) = (oldest version among its tokens) - penalty * uses,      at most `max_uses` uses

Source: R^3L, released code (shiweijiezero/R3L, Trinity-RFT's replay buffer): priority = version - 2 * use_count, at
most 3 uses.
Odd cases: a group without a right answer is used once. A right answer is an accuracy of at least `right`. At least
`fresh_share` of a batch is fresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.knobs import check, knob
from services.learning.replay import Choice, Held
from services.learning.replay._choosing import accuracies, sort


@dataclass(frozen=True)
class PositiveReuse:
    """Version 7 used once, version 8 used twice, version 6 used once: priorities 5, 4, 4."""

    penalty: float = knob(2.0, "versions that one use counts for", unit="versions", ge=0)
    right: float = knob(1.0, "accuracy from which an answer is right", ge=0, le=1)
    fresh_share: float = knob(0.5, "least share of a batch that is fresh; not in the paper", gt=0, le=1)
    max_uses: int = knob(3, "how often a group may be trained on", ge=1)
    reuse_max_lag: int = knob(8, "most versions between a reused group's oldest token and the version trained", ge=0)

    __post_init__ = check

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """See `Replay.choose`. Pure; of equal priorities the one that has waited longest goes first."""
        found = sort(buffer, version, max_lag, self.max_uses, self.reuse_max_lag)
        good = [held for held in found.used if max(accuracies(held.group)) >= self.right]
        good.sort(key=lambda held: -self.priority(held, version))
        fresh = found.fresh[:batch_groups]
        enough = len(fresh) >= self.fresh_share * batch_groups and len(fresh) + len(good) >= batch_groups
        return found.choice([*fresh, *good[: batch_groups - len(fresh)]] if enough else ())

    def priority(self, held: Held, version: int) -> float:
        """Higher goes first; `version` is the one being trained."""
        return version - held.group.lag(version) - self.penalty * held.uses
