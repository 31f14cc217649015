"""Reuse by absolute advantage: what moved the policy most is trained on first, again.

    priority(group) = mean over its rollouts of |A_i| at their last use

Fresh groups come first, as far as there are any, and at least a share of every batch is fresh; used groups of the
highest priority fill it up. Deterministic: ties go to the older group.

Source: prioritised experience replay, arXiv:1511.05952 (greedy form), with |A| in place of the TD error, as reuse
buffers of RL from verifiable rewards do.
Odd cases: a group whose advantages are all 0 is not reused. A group whose last advantages a restart forgot has those of
its verdicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.knobs import check, knob
from services.learning.replay import Choice, Held
from services.learning.replay._choosing import advantage, sort


@dataclass(frozen=True)
class PrioritisedAdvantage:
    """Mean absolute advantages [0.5, 1.5, 0, 0.8], two places: the second and the fourth."""

    fresh_share: float = knob(0.5, "least share of a batch that is fresh", gt=0, le=1)
    max_uses: int = knob(3, "how often a group may be trained on", ge=1)
    reuse_max_lag: int = knob(4, "most versions between a reused group's oldest token and the version trained", ge=0)

    __post_init__ = check

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """See `Replay.choose`. Pure."""
        found = sort(buffer, version, max_lag, self.max_uses, self.reuse_max_lag)
        ranked = sorted((held for held in found.used if advantage(held) > 0), key=lambda held: -advantage(held))
        fresh = found.fresh[:batch_groups]
        enough = len(fresh) >= self.fresh_share * batch_groups and len(fresh) + len(ranked) >= batch_groups
        return found.choice([*fresh, *ranked[: batch_groups - len(fresh)]] if enough else ())
