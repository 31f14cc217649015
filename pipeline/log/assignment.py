"""Which member of a group reads which partition: balanced, sticky, the same answer in every process. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TypeVar

P = TypeVar("P", bound=object)


def assign(members: Mapping[str, Set[P]], owners: Mapping[P, str], topics: Sequence[Set[P]] = ()) -> dict[P, str]:
    """Target owner of every wanted partition.

    `members`: what each live member wants to read. `owners`: who holds what now. `topics`: the partitions of each
    topic; without them all are of one. Each topic is shared evenly among those who want it: a member with its fair
    number of partitions, all of them of a quiet topic, would have nothing to do. A partition stays where it is unless
    its owner holds more than its share of the topic; the rest goes to whoever has least of it, and then least of all.

    >>> assign({"a": {1, 2, 3, 4}}, {})
    {1: 'a', 2: 'a', 3: 'a', 4: 'a'}
    >>> assign({"a": {1, 2, 3, 4}, "b": {1, 2, 3, 4}}, {1: "a", 2: "a", 3: "a", 4: "a"})
    {1: 'a', 2: 'a', 3: 'b', 4: 'b'}
    >>> assign({"a": {1, 2, 3, 4}, "b": {1, 2, 3, 4}}, {1: "a", 2: "a", 3: "b", 4: "b"}, [{1, 2}, {3, 4}])
    {1: 'a', 2: 'b', 3: 'b', 4: 'a'}
    >>> assign({"b": {1, 2, 3}}, {1: "a", 2: "b"})
    {1: 'b', 2: 'b', 3: 'b'}
    """
    wanted = set().union(*members.values()) if members else set()
    held = dict.fromkeys(sorted(members), 0)
    target: dict[P, str] = {}
    for topic in topics or [wanted]:
        target |= _share(sorted(topic & wanted), members, owners, held)
    return dict(sorted(target.items()))


def _share(
    partitions: Sequence[P], members: Mapping[str, Set[P]], owners: Mapping[P, str], held: dict[str, int]
) -> dict[P, str]:
    """The owners of one topic's partitions. `held`, what each member has of all topics, is kept up to date."""
    load = dict.fromkeys(held, 0)
    target: dict[P, str] = {}

    def give(partition: P, member: str) -> None:
        if partition in target:
            load[target[partition]] -= 1
            held[target[partition]] -= 1
        target[partition] = member
        load[member] += 1
        held[member] += 1

    def least(partition: P) -> str:
        return min((one for one in load if partition in members[one]), key=lambda one: (load[one], held[one]))

    for partition in partitions:
        owner = owners.get(partition)
        if owner in members and partition in members[owner]:
            give(partition, owner)
    for partition in (partition for partition in partitions if partition not in target):
        give(partition, least(partition))
    for partition in reversed(partitions):
        if load[target[partition]] > load[least(partition)] + 1:
            give(partition, least(partition))
    return target
