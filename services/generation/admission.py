"""How many rollouts may be in work: it follows what the engine's key-value cache bears. Pure.

Additive increase, multiplicative decrease (Chiu and Jain 1989, doi:10.1016/0169-7552(89)90019-6): while the cache is
more than `high` full, or the engine had to preempt a sequence, the limit is cut to `CUT` of what is in work; otherwise
it rises by `RISE` of the ceiling at every look, one a second. It begins at the ceiling, so nothing is held back before
the cache is full; and nothing ever is where every slot has room for the longest sequence (the transformers engine).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

CUT = 0.75
RISE = 1 / 32
LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is seen at a look.

    `kv_use`: share of the cache in use, [0, 1]. `preempted`: sequences since the last look. `in_work`: rollouts taken
    and not ended. `request`: rollouts of a typical request. `ceiling`: most rollouts that are ever let in.
    """

    kv_use: float
    preempted: int
    in_work: int
    request: float
    ceiling: float


@dataclass(frozen=True, slots=True)
class Admission:
    """`limit`: rollouts that may be in work. `high`: cache use that is too much; 1 turns the rule off.

    With a ceiling of 160, 100 in work and a full cache, the limit becomes 75; it stays there while those 100 come down;
    full again at 75, it becomes 56.25; from there it rises by 5 a second.

    >>> full, free = Load(0.99, 0, 100, 8, 160), Load(0.5, 0, 100, 8, 160)
    >>> cut = Admission(160).after(full)
    >>> cut.limit, cut.after(full).limit, cut.after(free).limit
    (75.0, 75.0, 80.0)
    """

    limit: float
    high: float = 0.95

    def after(self, seen: Load) -> Admission:
        """The rule after one more look."""
        limit = min(self.limit, seen.ceiling)
        if self.high >= 1:
            return replace(self, limit=seen.ceiling)
        if not seen.in_work or (seen.kv_use <= self.high and not seen.preempted):
            return replace(self, limit=min(seen.ceiling, limit + max(1.0, RISE * seen.ceiling)))
        if seen.in_work >= limit + seen.request:  # what was cut before has not come down yet
            return replace(self, limit=limit)
        return replace(self, limit=max(1.0, CUT * min(limit, seen.in_work)))
