"""Groups that say nothing give their places to groups of high task value (VSPO's refill after the group filter).

    V_q = (R_max - mean_q) * std_q,      P(q) = V_q / sum V        (std of the population; difficulty times uncertainty)

Of the next `batch_groups` fresh groups those with equal accuracies are left out ("degenerate_group"), and their places
are filled by draws without repetition among groups that were trained on before.

Source: VSPO, arXiv:2512.07478, by a summary. The paper draws the prompts and samples them anew; here the recorded
rollouts are used again, corrected by their log-probs: a sampler that asks for such prompts is the difficulty service's.
Odd cases: nothing of value is held: the batch is smaller. Every group says nothing and none is held: they all leave and
there is no batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.knobs import check, knob
from services.learning.replay import Choice, Held
from services.learning.replay._choosing import accuracies, draw, flat, shares, sort


@dataclass(frozen=True)
class ValueRefill:
    """R_max 1, means [.2, .5, .8], stds sqrt(mean (1 - mean)): V = [.32, .25, .08], P = [.492308, .384615, .123077]."""

    most_reward: float = knob(1.0, "R_max, the accuracy of a right answer", gt=0)
    max_uses: int = knob(4, "how often a group may be trained on; a guess", ge=2)
    reuse_max_lag: int = knob(8, "most versions between a reused group's oldest token and the version trained", ge=0)
    seed: int = knob(0, "of the draws", ge=0)

    __post_init__ = check

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """See `Replay.choose`. Pure: the same buffer and version draw the same groups."""
        found = sort(buffer, version, max_lag, self.max_uses, self.reuse_max_lag)
        if len(found.fresh) < batch_groups:
            return found.choice(())
        taken = found.fresh[:batch_groups]
        silent = [held for held in taken if flat(held.group)]
        values = [self.value(accuracies(held.group)) for held in found.used]
        drawn = draw(found.used, shares(values), len(silent), f"{self.seed} {version} {len(buffer)}")
        return found.choice([held for held in taken if not flat(held.group)] + drawn, silent)

    def value(self, accuracy: Sequence[float]) -> float:
        """V_q of one group."""
        mean = sum(accuracy) / len(accuracy)
        std = (sum((one - mean) ** 2 for one in accuracy) / len(accuracy)) ** 0.5
        return (self.most_reward - mean) * std
