"""W3C trace context: one trace per request, from permission to training step, with a branch for each of its rollouts.

    request (difficulty) -> sample (generation) -> check (verification) -> train or drop (learning)

Trace and span ids follow from the request id, so that every service puts its spans into the same trace, under the right
parent, without having to be told, and a trace can be found from a request id alone. What was traced in one service was
traced in all: the share that is traced is decided by the trace id.

The spans are read off the nouns that a stage has written; `pipeline/tracing.py` sends them to a collector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from google.protobuf.message import Message

from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

Value = str | int | float
Chosen = Callable[[str], bool]
"""Whether the trace of this request is wanted."""
OF_A_ROLLOUT = {rollout_pb2.Rollout, rollout_pb2.Verdict}


@dataclass(frozen=True)
class Span:
    """One thing that happened to a request or a rollout. Times: seconds since the Unix epoch."""

    name: str
    trace: str
    span: str
    parent: str
    begun: float
    ended: float
    attributes: Mapping[str, Value] = field(default_factory=dict)
    failed: str = ""


def trace_id(request_id: str) -> str:
    """32 hex digits.

    >>> trace_id("r-00000001")
    'e723ad5e38124e5737b6253c48124510'
    """
    return hashlib.sha256(b"sluice trace " + request_id.encode()).hexdigest()[:32]


def chosen(trace: str, share: float) -> bool:
    """Whether a trace is one of the share that is kept: its last 64 bits decide, as OpenTelemetry's ratio does.

    >>> [chosen(trace_id("r-00000001"), share) for share in (0.0, 0.2, 0.3, 1.0)]
    [False, False, True, True]
    """
    return int(trace[16:], 16) < round(share * 2**64)


@lru_cache(8192)
def kept(request_id: str, share: float) -> str:
    """The trace of a request when it is one of the share that is kept; else empty."""
    found = trace_id(request_id)
    return found if chosen(found, share) else ""


def span_id(name: str, *of: Value) -> str:
    """16 hex digits."""
    return hashlib.sha256("/".join(("sluice span", name, *map(str, of))).encode()).hexdigest()[:16]


def request_of(noun: Message) -> str:
    """The request that a noun is about; empty for one that is about none, or about many."""
    if type(noun) in OF_A_ROLLOUT:
        return noun.key.request_id  # type: ignore[attr-defined]
    return noun.request_id if isinstance(noun, prompt_pb2.RolloutRequest) else ""


def of(noun: Message) -> str:
    """The `traceparent` header for a noun about one request, under the span that made it; empty for others."""
    if isinstance(noun, prompt_pb2.RolloutRequest):
        return _header(noun.request_id, _request(noun.request_id, noun.attempt))
    if isinstance(noun, rollout_pb2.Rollout):
        return _header(noun.key.request_id, _of_key("sample", noun.key))
    if isinstance(noun, rollout_pb2.Verdict):
        return _header(noun.key.request_id, _of_key("check", noun.key))
    return ""


def spans(noun: Message, begun: float, ended: float, wanted: Chosen) -> Iterator[Span]:
    """What the noun says has happened; `begun` and `ended`: of the transaction that wrote it."""
    if isinstance(noun, prompt_pb2.RolloutRequest):
        yield from _requested(noun, begun, ended, wanted)
    elif isinstance(noun, rollout_pb2.Rollout):
        yield from _sampled(noun, ended, wanted)
    elif isinstance(noun, rollout_pb2.Verdict):
        yield from _checked(noun, ended, wanted)
    elif isinstance(noun, training_pb2.TrainStep):
        yield from _trained(noun, wanted)
        yield from _dropped(noun.drops, noun.epoch, noun.step, noun.ended_ms / 1000, wanted)
    elif isinstance(noun, training_pb2.DropNotice):
        yield from _dropped(noun.drops, noun.epoch, noun.after_step, ended, wanted)


def _requested(noun: Any, begun: float, ended: float, wanted: Chosen) -> Iterator[Span]:
    if wanted(noun.request_id):
        says: dict[str, Value] = {
            "sluice.request": noun.request_id,
            "sluice.group": noun.group_id,
            "sluice.prompt": noun.prompt_id,
            "sluice.rollouts": noun.n,
            "sluice.attempt": noun.attempt,
            "sluice.version": noun.version_at_issue,
        }
        trace, span = trace_id(noun.request_id), _request(noun.request_id, noun.attempt)
        yield Span("request", trace, span, "", begun, ended, says)


def _sampled(noun: Any, ended: float, wanted: Chosen) -> Iterator[Span]:
    if not wanted(noun.key.request_id):
        return
    ended = noun.timings.ended_ms / 1000 or ended
    versions = [span.version for call in noun.calls for span in call.spans]
    ending = rollout_pb2.Ending.Name(noun.ending).removeprefix("ENDING_").lower()
    says = _named(noun.key) | {
        "sluice.worker": noun.worker_id,
        "sluice.ending": ending,
        "sluice.tokens": sum(len(call.tokens) for call in noun.calls),
        "sluice.version.oldest": min(versions, default=0),
        "sluice.version.newest": max(versions, default=0),
        "sluice.queued_s": noun.timings.queued_s,
    }
    begun = ended - noun.timings.queued_s - noun.timings.generated_s
    parent = _request(noun.key.request_id, noun.key.attempt)
    yield _span("sample", noun.key, _of_key("sample", noun.key), parent, begun, ended, says, noun.reason)


def _checked(noun: Any, ended: float, wanted: Chosen) -> Iterator[Span]:
    if not wanted(noun.key.request_id):
        return
    outcome = rollout_pb2.VerdictOutcome.Name(noun.outcome).removeprefix("VERDICT_OUTCOME_").lower()
    says = _named(noun.key) | {
        "sluice.check": noun.checker,
        "sluice.outcome": outcome,
        "sluice.accuracy": noun.accuracy,
        "sluice.try": noun.attempt,
    }
    failed = noun.reason if outcome in ("infra_error", "not_run") else ""
    own, parent = _of_key("check", noun.key), _of_key("sample", noun.key)
    yield _span("check", noun.key, own, parent, ended - noun.wall_s, ended, says, failed)


def _trained(noun: Any, wanted: Chosen) -> Iterator[Span]:
    ended = noun.ended_ms / 1000
    for use in noun.uses:
        if wanted(use.key.request_id):
            says = _named(use.key) | {
                "sluice.epoch": noun.epoch,
                "sluice.step": noun.step,
                "sluice.version": noun.version,
                "sluice.use": use.use,
                "sluice.weight": use.weight,
                "sluice.advantage": use.advantage,
                "sluice.lag": use.lag,
            }
            own, parent = _of_key("train", use.key, noun.epoch, noun.step), _of_key("check", use.key)
            yield _span("train", use.key, own, parent, ended - noun.computed_s, ended, says)


def _dropped(drops: Any, epoch: int, step: int, at: float, wanted: Chosen) -> Iterator[Span]:
    for drop in drops:
        if wanted(drop.key.request_id):
            says = _named(drop.key) | {"sluice.epoch": epoch, "sluice.step": step, "sluice.reason": drop.reason}
            own, parent = _of_key("drop", drop.key, epoch, step), _of_key("check", drop.key)
            yield _span("drop", drop.key, own, parent, at, at, says)


def _span(
    name: str, key: Any, own: str, parent: str, begun: float, ended: float, says: Mapping[str, Value], failed: str = ""
) -> Span:
    return Span(name, trace_id(key.request_id), own, parent, begun, ended, says, failed)


def _header(request_id: str, span: str) -> str:
    return f"00-{trace_id(request_id)}-{span}-01"


def _request(request_id: str, attempt: int) -> str:
    return span_id("request", request_id, attempt)


def _of_key(name: str, key: rollout_pb2.RolloutKey, *more: Value) -> str:
    return span_id(name, key.request_id, key.index, key.attempt, *more)


def _named(key: rollout_pb2.RolloutKey) -> dict[str, Value]:
    return {"sluice.request": key.request_id, "sluice.rollout": key.index, "sluice.attempt": key.attempt}
