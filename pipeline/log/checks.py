"""What both logs refuse before they write."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from pipeline.errors import Poison, UserError
from pipeline.log.api import MAX_RECORD_BYTES, Send, TopicConfig


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


def refuse_other_partitions(config: TopicConfig, found: int) -> None:
    """Raise `UserError` when a topic exists with another number of partitions: its keys would move."""
    if found != config.partitions:
        raise UserError(
            f"topic {config.name!r} has {found} partitions, asked for {config.partitions}; accepted: {found}"
        )


def refuse_trim(topic: str) -> NoReturn:
    """Raise `UserError`: a compacted topic has no point before which everything may go."""
    raise UserError(f"topic {topic!r} is compacted and cannot be trimmed; accepted: a topic that is kept by time")
