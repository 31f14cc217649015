"""What the learner writes: which topic each of its nouns goes to, and under which key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from pipeline import records
from pipeline.log.api import Send
from pipeline.topics import Names


def sends(names: Names, nouns: Iterable[Message]) -> list[Send]:
    """Records of these nouns, in order, ready for one transaction."""
    addressed = ((noun, *_address(names, noun)) for noun in nouns)
    return [records.encode(names.topic(topic), key, noun) for noun, topic, key in addressed]


def _address(names: Names, noun: Any) -> tuple[str, str]:
    """(short topic, key). A checkpoint's key is its step: of several of one step the newest counts."""
    kind = noun.DESCRIPTOR.name
    if kind == "Checkpoint":
        return "checkpoints", f"{noun.step:012d}"
    if kind == "Outcome":
        return "outcomes", noun.request_id
    if kind == "WeightManifest":
        return "weights-manifest", noun.policy_id
    return "steps", names.run
