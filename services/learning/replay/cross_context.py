"""A group that is all wrong, or all right, borrows answers of the other kind to the same prompt (R^3's replay).

    group all wrong:  + up to k stored right answers;      group all right:  + up to k stored wrong ones

so that it has something to be compared with. What is borrowed keeps its recorded log-probs and versions, and is trained
like the rest; its use counts for the group that lends it, which may lend until `max_uses` or `reuse_max_lag`.

Source: R^3, arXiv:2601.19620, section 3.2 (cross-context replay). k is not in the text read: a guess.
Odd cases: no answer of the other kind is held: the group is trained as it is (its advantage is 0). Partial accuracies
are neither right nor wrong. The newest policy's answers are borrowed first; a group lends once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.knobs import check, knob
from services.learning.group import Member
from services.learning.replay import Choice, Held
from services.learning.replay._choosing import accuracies, lend, sort


@dataclass(frozen=True)
class CrossContext:
    """Accuracies [0, 0, 0, 0] and a stored group of the prompt with [1, 0, 1, 0], k = 2: [0, 0, 0, 0, 1, 1]."""

    most: int = knob(2, "answers that a group borrows at most, k; a guess", unit="rollouts", ge=1)
    max_uses: int = knob(4, "how often a group may be trained on or lend; a guess", ge=2)
    reuse_max_lag: int = knob(8, "most versions between a lent answer's group and the version trained", ge=0)

    __post_init__ = check

    def choose(self, buffer: Sequence[Held], version: int, batch_groups: int, max_lag: int) -> Choice:
        """See `Replay.choose`. Pure."""
        found = sort(buffer, version, max_lag, self.max_uses, self.reuse_max_lag)
        if len(found.fresh) < batch_groups:
            return found.choice(())
        batch = found.fresh[:batch_groups]
        mixed, after = lend(batch, found.used, self._wants, self.most)
        plain = found.choice(batch)
        kept = tuple(after.get(id(held), held) for held in plain.kept)
        return Choice(tuple(mixed), kept, plain.stale, plain.retired)

    def _wants(self, held: Held) -> Callable[[Member], bool] | None:
        said = set(accuracies(held.group))
        if said == {0.0}:
            return lambda member: member.verdict.accuracy == 1.0
        if said == {1.0}:
            return lambda member: member.verdict.accuracy == 0.0
        return None
