"""Which member of a group reads which partition: balanced, sticky, the same answer in every process. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TypeVar

P = TypeVar("P", bound=object)


def assign(members: Mapping[str, Set[P]], owners: Mapping[P, str]) -> dict[P, str]:
    """Target owner of every wanted partition.

    `members`: what each live member wants to read. `owners`: who holds what now. A partition stays where it is unless
    its owner holds more than its share; the rest goes to whoever has least.

    >>> assign({"a": {1, 2, 3, 4}}, {})
    {1: 'a', 2: 'a', 3: 'a', 4: 'a'}
    >>> assign({"a": {1, 2, 3, 4}, "b": {1, 2, 3, 4}}, {1: "a", 2: "a", 3: "a", 4: "a"})
    {1: 'a', 2: 'a', 3: 'b', 4: 'b'}
    >>> assign({"b": {1, 2, 3}}, {1: "a", 2: "b"})
    {1: 'b', 2: 'b', 3: 'b'}
    """
    wanted = sorted(set().union(*members.values())) if members else []
    load = dict.fromkeys(sorted(members), 0)
    target: dict[P, str] = {}
    for partition in wanted:
        owner = owners.get(partition)
        if owner in members and partition in members[owner]:
            target[partition] = owner
            load[owner] += 1
    for partition in (partition for partition in wanted if partition not in target):
        member = _least(members, load, partition)
        target[partition] = member
        load[member] += 1
    for partition in reversed(wanted):
        member = _least(members, load, partition)
        if load[target[partition]] > load[member] + 1:
            load[target[partition]] -= 1
            load[member] += 1
            target[partition] = member
    return {partition: target[partition] for partition in wanted}


def _least(members: Mapping[str, Set[P]], load: Mapping[str, int], partition: P) -> str:
    return min((member for member in load if partition in members[member]), key=lambda member: load[member])
