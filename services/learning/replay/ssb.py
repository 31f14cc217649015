"""Groups that still say something come back, those with the largest advantages most often (selective sample buffer).

    P(group) = |A_group| / sum |A|,     |A_group|: mean absolute advantage of its rollouts at their last use

Of every batch a share is fresh; the rest is drawn, without repetition, from groups that were trained on before and
whose advantages are not 0. Their ratios are taken to the log-probs that were recorded when they were sampled.

Source: Skywork R1V2, arXiv:2504.16656 (abstract): a buffer of samples with non-zero advantage, re-introduced by
weighted sampling that favours large ones. That the chance is proportional, the share and the age limit are guesses.
Odd cases: a group is drawn whole, for its advantages are computed again from its rewards. When too few groups with an
advantage are held, fresh groups fill the batch, and without enough of those there is no batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.knobs import check, knob
from services.learning.replay import Choice, Held
from services.learning.replay._choosing import advantage, draw, shares, sort


@dataclass(frozen=True)
class Ssb:
    """Mean absolute advantages [1.5, 0.5, 0, 0.8]: drawn with chances [0.535714, 0.178571, 0, 0.285714]."""

    share: float = knob(0.5, "share of a batch that is drawn from the buffer; a guess", gt=0, lt=1)
    max_uses: int = knob(4, "how often a group may be trained on; a guess", ge=2)
    reuse_max_lag: int = knob(8, "most versions between a reused group's oldest token and the version trained", ge=0)
    seed: int = knob(0, "of the draws", ge=0)

    __post_init__ = check

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """See `Replay.choose`. Pure: the same buffer and version draw the same groups."""
        found = sort(buffer, version, max_lag, self.max_uses, self.reuse_max_lag)
        drawn = draw(
            found.used, self.chances(found.used), int(self.share * batch_groups), f"{self.seed} {version} {len(buffer)}"
        )
        missing = batch_groups - len(drawn)
        return found.choice([*found.fresh[:missing], *drawn] if len(found.fresh) >= missing else ())

    def chances(self, used: Sequence[Held]) -> list[float]:
        """Of each used group to be drawn first."""
        return shares([advantage(held) for held in used])
