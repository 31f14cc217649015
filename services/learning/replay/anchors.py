"""A group in which every answer is wrong gets a right one of the same prompt as its anchor (DaGRPO).

    group all wrong:  + up to `most` verified answers with reward 1, then the advantages of the mixed group

Source: DaGRPO, arXiv:2512.06337 (abstract: off-policy anchors for hard prompts). The formulas are a guess. The paper
takes anchors from a library of verified solutions; here they are answers that this run sampled and verified before, so
that their recorded log-probs correct for where they came from.
Odd cases: a prompt that was never answered right has no anchor: its group is trained as it is. A group with one right
answer needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.knobs import check, knob
from services.learning.group import Member
from services.learning.replay import Choice, Held
from services.learning.replay._choosing import accuracies, lend, sort


@dataclass(frozen=True)
class Anchors:
    """Rewards [0, 0, 0] and one anchor: [0, 0, 0, 1], advantages [-0.5, -0.5, -0.5, 1.5] (std with ddof 1)."""

    most: int = knob(1, "anchors of a group; a guess", unit="rollouts", ge=1)
    max_uses: int = knob(8, "how often a group may be trained on or lend; a guess", ge=2)
    reuse_max_lag: int = knob(16, "most versions between an anchor's group and the version trained; a guess", ge=0)

    __post_init__ = check

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """See `Replay.choose`. Pure."""
        found = sort(buffer, version, max_lag, self.max_uses, self.reuse_max_lag)
        if len(found.fresh) < batch_groups:
            return found.choice(())
        batch = found.fresh[:batch_groups]
        lenders = [held for held in found.used if max(accuracies(held.group)) == 1.0]
        mixed, after = lend(batch, lenders, self._wants, self.most)
        plain = found.choice(batch)
        kept = tuple(after.get(id(held), held) for held in plain.kept)
        return Choice(tuple(mixed), kept, plain.stale, plain.retired)

    def _wants(self, held: Held) -> Callable[[Member], bool] | None:
        if max(accuracies(held.group)) == 0.0:
            return lambda member: member.verdict.accuracy == 1.0
        return None
