"""Nouns on the log: a protobuf value with headers that say what it is.

Headers: `content-type`, `schema` (noun and major.minor, for example "Rollout/1.0"), ids, so that a record whose value
cannot be read is still accounted for, and `traceparent` where the request is traced.

A reader accepts its own major version, keeps unknown fields and refuses a newer major as poison.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import NamedTuple, TypeVar

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

KEY_FIELDS = ("request_id", "index", "attempt")

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
    form = _form(type(noun))
    headers = [*form.headers, *((name, str(getattr(noun, name)).encode()) for name in form.ids)]
    if form.keyed:
        one: rollout_pb2.RolloutKey = noun.key  # type: ignore[attr-defined]
        headers += [(name, str(getattr(one, name)).encode()) for name in KEY_FIELDS]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return Send(topic, key.encode(), noun.SerializeToString(), tuple(headers), partition)


def noun_name(record: Record) -> str:
    """Which noun a record says it is; empty when it does not say."""
    return noun_named(record.headers)


def noun_named(headers: Headers) -> str:
    """Which noun these headers name; empty when none."""
    for name, value in headers:
        if name == "schema":
            return _noun(value)
    return ""


def decode(record: Record) -> Message:
    """The noun in a record. Raises `Poison` when it cannot be read or is of a newer major version."""
    noun = _readable(record.header("schema") or b"")
    if record.header("claim") is not None:
        raise Poison(f"{noun.DESCRIPTOR.name} record is a claim on a payload that the run's store does not have")
    try:
        return noun.FromString(record.value)
    except DecodeError as error:
        raise Poison(f"{noun.DESCRIPTOR.name} record does not decode: {error}") from error


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
    name, value = headers[-1] if headers else ("", b"")  # `encode` puts it last
    return value.decode(errors="replace") if name == "traceparent" else ""


class _Form(NamedTuple):
    """What is the same in the headers of every record of a noun, and which ids the others come from."""

    headers: Headers
    ids: tuple[str, ...]
    keyed: bool


@cache
def _form(noun: type[Message]) -> _Form:
    fields = noun.DESCRIPTOR.fields_by_name
    schema = f"{noun.DESCRIPTOR.name}/{MAJOR}.{MINOR}"
    keyed = "key" in fields and fields["key"].message_type is rollout_pb2.RolloutKey.DESCRIPTOR
    theirs = KEY_FIELDS if keyed else ()
    ids = tuple(name for name in ID_FIELDS if name in fields and not fields[name].message_type and name not in theirs)
    return _Form((("content-type", CONTENT_TYPE.encode()), ("schema", schema.encode())), ids, keyed)


@lru_cache(256)
def _noun(schema: bytes) -> str:
    return schema.decode(errors="replace").partition("/")[0]


@lru_cache(256)
def _readable(schema: bytes) -> type[Message]:
    name, _, version = schema.decode(errors="replace").partition("/")
    if name not in NOUNS:
        raise Poison(f"record says it is {name!r}; accepted: {', '.join(sorted(NOUNS))}")
    major = version.partition(".")[0]
    if not major.isdigit() or int(major) > MAJOR:
        raise Poison(f"{name} record has schema version {version!r}; accepted: major {MAJOR} or older")
    return NOUNS[name]
