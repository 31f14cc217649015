"""The assignor of our Kafka groups, asked as the leader of a group asks it."""

from __future__ import annotations

from types import SimpleNamespace

from kafka.protocol.consumer.metadata import ConsumerProtocolSubscription
from kafka.structs import TopicPartition

from pipeline.log.kafka_assignor import EvenTopicsAssignor

CLUSTER = SimpleNamespace(partitions_for_topic={"requests": {0, 1, 2, 3}, "requests-retry": {0, 1, 2, 3}}.get)
Held = dict[str, list[int]]


def member(name: str, held: Held) -> SimpleNamespace:
    owned = [ConsumerProtocolSubscription.TopicPartition(topic=topic, partitions=at) for topic, at in held.items()]
    metadata = ConsumerProtocolSubscription(
        version=1, topics=["requests", "requests-retry"], user_data=b"", owned_partitions=owned
    )
    return SimpleNamespace(member_id=name, metadata=metadata)


def assigned(**members: Held) -> dict[str, Held]:
    """What each member gets who comes with what it holds."""
    found = EvenTopicsAssignor().assign(CLUSTER, [member(name, held) for name, held in members.items()])
    return {
        name: {topic: list(partitions) for topic, partitions in one.assigned_partitions} for name, one in found.items()
    }


def partitions(held: Held) -> set[TopicPartition]:
    return {TopicPartition(topic, one) for topic, them in held.items() for one in them}


def test_one_member_gets_all_of_both_topics():
    assert assigned(a={}) == {"a": {"requests": [0, 1, 2, 3], "requests-retry": [0, 1, 2, 3]}}


def test_a_partition_that_moves_is_nobodys_in_the_first_round_and_its_new_owners_in_the_second():
    first = assigned(a={"requests": [0, 1, 2, 3], "requests-retry": [0, 1, 2, 3]}, b={})
    assert first == {"a": {"requests": [0, 1], "requests-retry": [0, 1]}, "b": {}}
    second = assigned(**first)
    assert second == {"a": first["a"], "b": {"requests": [2, 3], "requests-retry": [2, 3]}}
    assert assigned(**second) == second


def test_workers_that_join_get_partitions_of_every_topic():
    held = assigned(a={})
    for _ in range(2):
        held = assigned(**{"b": {}, "c": {}} | held)
    assert all(set(one) == {"requests", "requests-retry"} for one in held.values())
    assert sum(len(partitions(one)) for one in held.values()) == 8


def test_who_stays_takes_over_from_one_that_died():
    everything = assigned(a={})["a"]
    assert assigned(b={"requests": [2, 3], "requests-retry": [2, 3]}) == {"b": everything}


def test_a_partition_that_two_claim_has_one_owner():
    both = assigned(a={"requests": [0, 1, 2]}, b={"requests": [2, 3]})
    assert not partitions(both["a"]) & partitions(both["b"])
