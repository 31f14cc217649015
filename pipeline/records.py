"""Nouns on the log: a protobuf value with headers that say what it is.

Headers: `content-type`, `schema` (noun and major.minor, for example "Rollout/1.0"), `traceparent`, and ids, so that a
record whose value cannot be read is still accounted for.

A reader accepts its own major version, keeps unknown fields and refuses a newer major as poison.
"""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from pipeline.errors import Poison
from pipeline.log.api import Headers, Record, Send
from sluice.v1 import (
    control_pb2,
    posterior_pb2,
    prompt_pb2,
    rollout_pb2,
    training_pb2,
    weights_pb2,
)

MAJOR, MINOR = 1, 0
CONTENT_TYPE = "application/protobuf"
ID_FIELDS = ("request_id", "group_id", "prompt_id", "index", "attempt", "n", "first_index", "version", "step", "epoch")

M = TypeVar("M", bound=Message)

NOUNS: dict[str, type[Message]] = {
    noun.DESCRIPTOR.name: noun
    for noun in (
        prompt_pb2.Prompt,
        prompt_pb2.RolloutRequest,
        rollout_pb2.Rollout,
        rollout_pb2.Verdict,
        training_pb2.TrainStep,
        training_pb2.DropNotice,
        training_pb2.Rewind,
        training_pb2.Checkpoint,
        training_pb2.Outcome,
        weights_pb2.WeightManifest,
        weights_pb2.WeightChunk,
        posterior_pb2.PosteriorState,
        posterior_pb2.GateState,
        control_pb2.Control,
        control_pb2.WorkerStatus,
        control_pb2.DeadLetter,
        control_pb2.Evaluation,
    )
}


def encode(topic: str, key: str, noun: Message, traceparent: str = "", partition: int | None = None) -> Send:
    """A record of `noun`, ready to send."""
    headers: list[tuple[str, bytes]] = [
        ("content-type", CONTENT_TYPE.encode()),
        ("schema", f"{noun.DESCRIPTOR.name}/{MAJOR}.{MINOR}".encode()),
    ]
    headers += [(name, str(value).encode()) for name, value in _ids(noun).items()]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return Send(topic, key.encode(), noun.SerializeToString(), tuple(headers), partition)


def noun_name(record: Record) -> str:
    """Which noun a record says it is; empty when it does not say."""
    return (record.header("schema") or b"").decode(errors="replace").partition("/")[0]


def decode(record: Record) -> Message:
    """The noun in a record. Raises `Poison` when it cannot be read or is of a newer major version."""
    name, _, version = (record.header("schema") or b"").decode(errors="replace").partition("/")
    if name not in NOUNS:
        raise Poison(f"record says it is {name!r}; accepted: {', '.join(sorted(NOUNS))}")
    if record.header("claim") is not None:
        raise Poison(f"{name} record is a claim on a payload that could not be had from the run's store")
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) > MAJOR:
        raise Poison(f"{name} record has schema version {version!r}; accepted: major {MAJOR} or older")
    try:
        return NOUNS[name].FromString(record.value)
    except DecodeError as error:
        raise Poison(f"{name} record does not decode: {error}") from error


def decode_as(noun: type[M], record: Record) -> M:
    """The noun in a record, which must be a `noun`."""
    found = decode(record)
    if not isinstance(found, noun):
        raise Poison(f"record holds a {found.DESCRIPTOR.name}; accepted: {noun.DESCRIPTOR.name}")
    return found


def ids(record: Record) -> dict[str, str]:
    """The ids in a record's headers: readable when its value is not."""
    return {name: value.decode(errors="replace") for name, value in record.headers if name in ID_FIELDS}


def traceparent(headers: Headers) -> str:
    """The W3C trace context that a record carries; empty when none."""
    return next((value.decode(errors="replace") for name, value in headers if name == "traceparent"), "")


def _ids(noun: Message) -> dict[str, Any]:
    names = noun.DESCRIPTOR.fields_by_name
    found = {name: getattr(noun, name) for name in ID_FIELDS if name in names and not names[name].message_type}
    if "key" in names and names["key"].message_type is rollout_pb2.RolloutKey.DESCRIPTOR:
        key = noun.key  # type: ignore[attr-defined]
        found |= {"request_id": key.request_id, "index": key.index, "attempt": key.attempt}
    return found
