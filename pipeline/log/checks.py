"""What both logs refuse before they write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from pipeline.errors import Poison, UserError
from pipeline.log.api import MAX_RECORD_BYTES, Send, TopicConfig

MOST_REPLICAS = 32_767
"""What Kafka's requests hold."""


def refuse_large(sends: Sequence[Send]) -> None:
    """Raise `Poison` for a value over the limit: it should have been a claim."""
    for send in sends:
        if len(send.value) > MAX_RECORD_BYTES:
            raise Poison(
                f"record for {send.topic!r} with key {send.key[:80]!r} has {len(send.value)} bytes; "
                f"accepted: {MAX_RECORD_BYTES} or fewer, more goes to the store as a claim"
            )


def refuse_topic(config: TopicConfig) -> None:
    """Raise `UserError` for a topic that no log can have."""
    if config.partitions < 1:
        raise UserError(f"partitions of {config.name!r} is {config.partitions}; accepted: 1 or more")
    if not 0 <= config.replicas <= MOST_REPLICAS:
        raise UserError(
            f"replicas of {config.name!r} is {config.replicas}; accepted: 0, the cluster's default, to {MOST_REPLICAS}"
        )


def refuse_other_partitions(config: TopicConfig, found: int) -> None:
    """Raise `UserError` when a topic exists with another number of partitions: its keys would move."""
    if found != config.partitions:
        raise UserError(
            f"topic {config.name!r} has {found} partitions, asked for {config.partitions}; accepted: {found}"
        )


def refuse_replicas(config: TopicConfig, brokers: int, error: Exception) -> NoReturn:
    """Raise `UserError` when more copies are asked for than there are brokers; for the default, `error`."""
    if not config.replicas:
        raise error  # its own brokers may be starting: it is asked again
    there = "1 broker is" if brokers == 1 else f"{brokers} brokers are"
    raise UserError(
        f"replicas of {config.name!r} is {config.replicas} and {there} there; accepted: at most {brokers}; 0 is the "
        "cluster's default"
    ) from error


def refuse_trim(topic: str) -> NoReturn:
    """Raise `UserError`: a compacted topic has no point before which everything may go."""
    raise UserError(f"topic {topic!r} is compacted and cannot be trimmed; accepted: a topic that is kept by time")
