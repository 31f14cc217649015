"""What replay policies share: who is too old, who is spent, and drawing among those that are left."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.learning.group import Group, Member
from services.learning.replay import Choice, Held


@dataclass(frozen=True)
class Sorted:
    """The buffer by what may become of each group. `fresh`: never trained on, oldest policy first. `used`: in order."""

    fresh: list[Held]
    used: list[Held]
    stale: tuple[Held, ...]
    retired: tuple[Held, ...]
    order: dict[int, int]

    def choice(self, batch: Sequence[Held], refilled: Sequence[Held] = ()) -> Choice:
        """These are trained on; what is left stays, in the buffer's order."""
        gone = {id(held) for held in (*batch, *refilled)}
        left = [held for held in (*self.fresh, *self.used) if id(held) not in gone]
        left.sort(key=lambda held: self.order[id(held)])
        return Choice(tuple(batch), tuple(left), self.stale, self.retired, tuple(refilled))


def sort(buffer: Sequence[Held], version: int, max_lag: int, max_uses: int, reuse_max_lag: int) -> Sorted:
    """`max_lag` bounds the first use, `reuse_max_lag` every later one; both in versions, of a group's oldest token."""
    stale = tuple(held for held in buffer if not held.uses and held.group.lag(version) > max_lag)
    spent = [held.uses and (held.uses >= max_uses or held.group.lag(version) > reuse_max_lag) for held in buffer]
    retired = tuple(held for held, gone in zip(buffer, spent, strict=True) if gone)
    out = {id(held) for held in (*stale, *retired)}
    left = [held for held in buffer if id(held) not in out]
    fresh = sorted((held for held in left if not held.uses), key=lambda held: -held.group.lag(version))
    used = [held for held in left if held.uses]
    return Sorted(fresh, used, stale, retired, {id(held): place for place, held in enumerate(buffer)})


def draw(held: Sequence[Held], weights: Sequence[float], most: int, salt: str) -> list[Held]:
    """At most `most` different groups, one after another with chances as their weights; weight 0 is never drawn.

    The same groups, weights and salt give the same draw.
    """
    chance = random.Random(salt)
    # The keys u^(1/w) of Efraimidis and Spirakis: the largest ones are a weighted draw without replacement.
    keys = [chance.random() ** (1 / weight) if weight > 0 else -1.0 for weight in weights]
    order = sorted(range(len(held)), key=lambda place: -keys[place])
    return [held[place] for place in order[:most] if keys[place] >= 0]


def shares(weights: Sequence[float]) -> list[float]:
    """Chances of the first draw, which add up to 1.

    >>> [round(share, 6) for share in shares([1.5, 0.5, 0.0, 0.8])]
    [0.535714, 0.178571, 0.0, 0.285714]
    """
    total = sum(weights)
    return [weight / total if total else 0.0 for weight in weights]


def accuracies(group: Group) -> list[float]:
    """What the verdicts say of its members, each in [0, 1]."""
    return [member.verdict.accuracy for member in group.members]


def flat(group: Group) -> bool:
    """Are all its members alike right or wrong, so that they say nothing of each other?"""
    return len(group.members) > 1 and len(set(accuracies(group))) == 1


def advantage(held: Held) -> float:
    """Mean absolute advantage at its last use; before any, or when a restart forgot it, that of its verdicts: the mean
    of |accuracy - mean| over the group's std (population)."""
    if held.advantage is not None:
        return held.advantage
    found = accuracies(held.group)
    mean = sum(found) / len(found)
    std = (sum((one - mean) ** 2 for one in found) / len(found)) ** 0.5
    return sum(abs(one - mean) for one in found) / len(found) / std if std else 0.0


def lend(
    batch: Sequence[Held], lenders: Sequence[Held], wants: Callable[[Held], Callable[[Member], bool] | None], most: int
) -> tuple[list[Held], dict[int, Held]]:
    """Let groups of the batch borrow rollouts of the same prompt from lenders, newest policy first.

    `wants`: which rollouts a group wants; None when it wants none. Returns the batch, and what each lender (by id) has
    become: lending counts as a use of it.
    """
    after = {id(held): held for held in lenders}
    found = []
    for held in batch:
        wanted = wants(held)
        borrowed: list[Member] = []
        for lender in sorted(lenders, key=lambda one: -_newest(one.group)) if wanted else ():
            names = [m.name for m in lender.group.members if wanted and wanted(m)][: most - len(borrowed)]
            fresh = after[id(lender)] is lender  # each group lends once a step
            if lender.group.prompt_id == held.group.prompt_id and names and fresh and lender is not held:
                after[id(lender)], lent = lender.lend(frozenset(names))
                borrowed += lent
        found.append(Held(held.group, held.uses, held.advantage, tuple(borrowed)) if borrowed else held)
    return found, after


def _newest(group: Group) -> int:
    return max(member.min_version for member in group.members)
