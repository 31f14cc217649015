"""Who reads which partition of a Kafka group: the rule of the embedded log, in Kafka's cooperative protocol.

Kafka's own sticky assignor balances the partitions of all topics together: a worker that joins could be given nothing
but partitions of `requests-retry`, where there is next to nothing to do. Ours shares every topic evenly
(`pipeline/log/assignment.py`). A partition that moves is given to nobody in the round in which its owner learns that
it is to let go of it; the next round, which that owner asks for, gives it to its new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment
from kafka.structs import TopicPartition

from pipeline.log.assignment import assign


class EvenTopicsAssignor(CooperativeStickyAssignor):
    """How the members of a group are found out is kafka-python's; what they get is ours."""

    name = "even-topics"

    def assign(self, cluster: Any, members: Sequence[Any]) -> dict[str, ConsumerProtocolAssignment]:
        """What each member may read from now on. `members` have `member_id` and `metadata`."""
        known = {one.member_id: self.parse_member_metadata(one.metadata) for one in members}
        topics = {name: _partitions(cluster, name) for one in known.values() for name in one.subscription}
        wishes = {who: {at for name in one.subscription for at in topics[name]} for who, one in known.items()}
        # Who joined with the newest generation owns what two claim: the other was away when it was given to this one.
        by_age = sorted(known.items(), key=lambda member: member[1].generation)
        owners = {at: who for who, one in by_age for at in one.partitions}
        target = assign(wishes, owners, [topics[name] for name in sorted(topics)])
        stay = [(at, who) for at, who in target.items() if owners.get(at, who) == who]
        return {who: _answer(self.version, [at for at, owner in stay if owner == who]) for who in known}


def _partitions(cluster: Any, topic: str) -> set[TopicPartition]:
    return {TopicPartition(topic, partition) for partition in cluster.partitions_for_topic(topic) or ()}


def _answer(version: int, partitions: Sequence[TopicPartition]) -> ConsumerProtocolAssignment:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        by_topic.setdefault(topic, []).append(partition)
    return ConsumerProtocolAssignment(version, list(by_topic.items()), b"")
