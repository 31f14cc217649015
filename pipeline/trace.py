"""W3C trace context: one trace per requested rollout, from request to training step.

The trace id follows from the request id, so that every service puts its span into the same trace without having to be
told, and a trace can be found from a request id alone.
"""

from __future__ import annotations

import hashlib
import secrets

from google.protobuf.message import Message


def trace_id(request_id: str) -> str:
    """32 hex digits.

    >>> trace_id("r-00000001")
    'e723ad5e38124e5737b6253c48124510'
    """
    return hashlib.sha256(b"sluice trace " + request_id.encode()).hexdigest()[:32]


def traceparent(request_id: str) -> str:
    """A `traceparent` header with a fresh span id; not sampled unless somebody collects."""
    return f"00-{trace_id(request_id)}-{secrets.token_hex(8)}-01"


def of(noun: Message) -> str:
    """The header for a noun about one request; empty for others."""
    names = noun.DESCRIPTOR.fields_by_name
    if "request_id" in names:
        return traceparent(noun.request_id)  # type: ignore[attr-defined]
    if "key" in names and names["key"].message_type is not None:
        return traceparent(noun.key.request_id)  # type: ignore[attr-defined]
    return ""
