"""Rollouts from what an engine said, and terminal rollouts from ids alone. Pure."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.digest import rollout_sha256
from services.generation import policy
from services.generation.engine.api import Completion
from services.generation.prompting import Context
from sluice.v1 import prompt_pb2, rollout_pb2

POLICY_ID = "main"


@dataclass(frozen=True, slots=True)
class Maker:
    """Who made a rollout. `kv`: "keep" or "recompute"."""

    worker_id: str
    engine: str
    kv: str
    policy_id: str = POLICY_ID


def rollout(
    request: prompt_pb2.RolloutRequest, index: int, context: Context, said: Completion, maker: Maker, now_ms: int
) -> rollout_pb2.Rollout:
    """The rollout of index `index` (inside the group), all of it filled in."""
    made = _bare(request, index, maker)
    made.ending, made.reason = said.ending, said.reason
    if said.tokens:
        call = made.calls.add(context_tokens=context.tokens, tokens=said.tokens, logprobs=said.logprobs)
        call.ending, call.text = said.ending, said.text
        call.injections.extend(context.injections)
        for first, version, temperature in spans(said, request.sampling.temperature):
            call.spans.add(first_token=first, policy_id=maker.policy_id, version=version, temperature=temperature)
    made.timings.queued_s, made.timings.generated_s = said.queued_s, said.generated_s
    return _sealed(made, now_ms)


def spans(said: Completion, asked: float) -> list[tuple[int, int, float]]:
    """(first token, version, temperature) of every run of tokens that agree in both. `asked`: what the request says.

    >>> spans(Completion("a", [5, 6, 7], [], [(0, 1), (2, 2)], 1, temperatures=[1.0, 0.5, 0.5]), 1.0)
    [(0, 1, 1.0), (1, 1, 0.5), (2, 2, 0.5)]
    """
    if not said.temperatures:
        return [(first, version, asked) for first, version in said.spans]
    heat = said.temperatures
    starts = {first for first, _ in said.spans} | {i for i in range(1, len(heat)) if heat[i] != heat[i - 1]}
    versions = dict(said.spans)
    found, version = [], 0
    for first in sorted(start for start in starts if start < len(heat)):
        version = versions.get(first, version)
        found.append((first, version, heat[first]))
    return found


def terminal(
    request: prompt_pb2.RolloutRequest, ending: rollout_pb2.Ending, reason: str, maker: Maker, now_ms: int
) -> list[rollout_pb2.Rollout]:
    """All of a request's rollouts, ended before anything was sampled. `reason` is of a bounded set."""
    found = []
    for index in indices(request):
        made = _bare(request, index, maker)
        made.ending, made.reason = ending, reason
        found.append(_sealed(made, now_ms))
    return found


def poisoned(ids: Mapping[str, str], reason: str, maker: Maker) -> list[rollout_pb2.Rollout]:
    """Failed rollouts for a request that cannot be read, from the ids in its headers; none without a request id."""
    if not ids.get("request_id"):
        return []
    request = prompt_pb2.RolloutRequest(
        request_id=ids["request_id"],
        group_id=ids.get("group_id", ""),
        prompt_id=ids.get("prompt_id", ""),
        attempt=_number(ids, "attempt", 1),
        n=_number(ids, "n", 1),
        first_index=_number(ids, "first_index", 0),
        purpose=prompt_pb2.PURPOSE_TRAIN,
    )
    return terminal(request, rollout_pb2.ENDING_FAILED, reason or policy.POISON, maker, int(time.time() * 1000))


def indices(request: prompt_pb2.RolloutRequest) -> range:
    """Indices, inside the group, of the rollouts that a request asks for."""
    return range(request.first_index, request.first_index + request.n)


def seed(request: prompt_pb2.RolloutRequest, index: int) -> int:
    """Seed of one rollout's draws, 64 bits: of the request's seed, or of its id and attempt where it has none."""
    root = str(request.sampling.seed) if request.sampling.seed else f"{request.request_id}/{request.attempt}"
    return int.from_bytes(hashlib.sha256(f"{root}/{index}".encode()).digest()[:8], "little")


def _bare(request: prompt_pb2.RolloutRequest, index: int, maker: Maker) -> rollout_pb2.Rollout:
    made = rollout_pb2.Rollout(
        key=rollout_pb2.RolloutKey(request_id=request.request_id, index=index, attempt=request.attempt),
        group_id=request.group_id,
        prompt_id=request.prompt_id,
        prompt_digest=request.prompt_digest,
        purpose=request.purpose,
        worker_id=maker.worker_id,
        engine=maker.engine,
        kv_policy=maker.kv,
        final=request.final,
        request_n=request.n,
        domain=request.domain,
        family=request.family,
    )
    if request.HasField("belief"):
        made.belief.CopyFrom(request.belief)
    return made


def _sealed(made: rollout_pb2.Rollout, now_ms: int) -> rollout_pb2.Rollout:
    made.timings.ended_ms = now_ms
    made.sha256 = rollout_sha256(made)
    return made


def _number(ids: Mapping[str, str], name: str, default: int) -> int:
    text = ids.get(name, "")
    return int(text) if text.isdigit() else default
