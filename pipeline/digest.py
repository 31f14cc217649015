"""Digests that join nouns across topics: of a prompt, and of what one attempt said.

Protobuf's own serialisation is deterministic only on request and only within one runtime, so both digests are taken
over an explicit, length-prefixed sequence of fields: the same in every process and in every protobuf release.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator

from sluice.v1 import prompt_pb2, rollout_pb2


def prompt_digest(prompt: prompt_pb2.Prompt) -> bytes:
    """SHA-256 over a prompt's messages and check, 32 bytes. Its id, split and labels do not count.

    >>> one = prompt_pb2.Prompt(prompt_id="a", check=prompt_pb2.CheckSpec(check="exact", answer="4"))
    >>> two = prompt_pb2.Prompt(prompt_id="b", check=prompt_pb2.CheckSpec(check="exact", answer="4"))
    >>> prompt_digest(one) == prompt_digest(two), len(prompt_digest(one))
    (True, 32)
    """
    return _sha256(_prompt_fields(prompt))


def rollout_sha256(rollout: rollout_pb2.Rollout) -> bytes:
    """SHA-256 over a rollout's key, every call's sampled tokens, and how it ended, 32 bytes: what a verdict carries."""
    return _sha256(_rollout_fields(rollout))


def _prompt_fields(prompt: prompt_pb2.Prompt) -> Iterator[bytes]:
    yield from (b"prompt/1", _number(len(prompt.messages)))
    for message in prompt.messages:
        yield from (message.role.encode(), _number(len(message.parts)))
        for part in message.parts:
            yield from _part_fields(part)
    yield from (prompt.check.check.encode(), prompt.check.answer.encode(), prompt.check.spec_json.encode())


def _part_fields(part: prompt_pb2.Part) -> Iterator[bytes]:
    if part.WhichOneof("content") == "image":
        image = part.image
        yield from (b"image", image.media_type.encode(), image.claim.sha256 or hashlib.sha256(image.data).digest())
    else:
        yield from (b"text", part.text.encode())


def _rollout_fields(rollout: rollout_pb2.Rollout) -> Iterator[bytes]:
    key = rollout.key
    yield from (b"rollout/1", key.request_id.encode(), _number(key.index), _number(key.attempt))
    yield _number(len(rollout.calls))
    for call in rollout.calls:
        yield struct.pack(f"<{len(call.tokens)}I", *call.tokens)
    yield _number(rollout.ending)


def _number(value: int) -> bytes:
    return struct.pack("<Q", value)


def _sha256(fields: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for field in fields:
        digest.update(_number(len(field)))
        digest.update(field)
    return digest.digest()
