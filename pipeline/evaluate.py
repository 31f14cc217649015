"""Evaluation: pass@k and mean@k on named sets, each pinned to one version, outside the audit.

Samples are asked for through generation's door while a hold keeps the engine on one version, and checked through
verification's door. The result is an `Evaluation` on the `evals` topic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipeline.client import Client
from pipeline.errors import Retryable
from sluice.v1 import control_pb2, generation_pb2, prompt_pb2, rollout_pb2, verification_pb2

CALL_S = 600.0
ASKERS = 16


@dataclass(frozen=True)
class Plan:
    """What to evaluate. `name` goes into the record; `samples` at `temperature`; 0 is greedy and takes one."""

    name: str
    prompts: Sequence[prompt_pb2.Prompt]
    samples: int = 4
    temperature: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    seed: int = 1


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate that at least one of k samples is right, from n of which `correct` are (arXiv:2107.03374).

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 4), pass_at_k(4, 0, 2)
    (0.25, 1.0, 0.0)
    """
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def evaluate(generation: Client, verification: Client, plan: Plan, step: int) -> control_pb2.Evaluation:
    """Sample, check and sum up. Raises `Retryable` when more than one version answered."""
    hold = generation.generation.Hold(generation_pb2.HoldRequest(seconds=CALL_S), timeout=30.0)
    try:
        with ThreadPoolExecutor(ASKERS) as pool:
            asked = [(generation, verification, plan, number, prompt) for number, prompt in enumerate(plan.prompts)]
            verdicts = list(pool.map(lambda arguments: _one(*arguments), asked))
    finally:
        generation.generation.Hold(generation_pb2.HoldRequest(release=hold.hold_id), timeout=30.0)
    versions = {
        version
        for one in verdicts
        for verdict in one
        if verdict.tokens
        for version in (verdict.min_version, verdict.max_version)
    }
    if versions - {hold.version}:
        raise Retryable(
            f"evaluation {plan.name!r} was answered by versions {sorted(versions)}, not by {hold.version} alone"
        )
    return control_pb2.Evaluation(
        name=plan.name,
        version=hold.version,
        step=step,
        prompts=len(plan.prompts),
        samples=plan.samples,
        temperature=plan.temperature,
        metrics=_metrics(verdicts),
        ended_ms=int(time.time() * 1000),
    )


def _one(
    generation: Client, verification: Client, plan: Plan, number: int, prompt: prompt_pb2.Prompt
) -> list[rollout_pb2.Verdict]:
    request = prompt_pb2.RolloutRequest(
        request_id=f"eval-{plan.name}-{number}",
        prompt_id=prompt.prompt_id,
        prompt_digest=prompt.digest,
        messages=prompt.messages,
        n=plan.samples,
        attempt=1,
        final=True,
        purpose=prompt_pb2.PURPOSE_EVALUATE,
        deadline_ms=int((time.time() + CALL_S) * 1000),
        sampling=prompt_pb2.SamplingParams(
            temperature=plan.temperature,
            top_p=1.0,
            max_tokens=plan.max_tokens,
            stop=plan.stop,
            seed=plan.seed * 1_000_003 + number + 1,
        ),
    )
    said = generation.generation.Generate(generation_pb2.GenerateRequest(request=request), timeout=CALL_S)
    return [
        verification.verification.Verify(
            verification_pb2.VerifyRequest(check=prompt.check, prompt_id=prompt.prompt_id, rollout=rollout),
            timeout=CALL_S,
        )
        for rollout in said.rollouts
    ]


def _metrics(verdicts: Iterable[Sequence[rollout_pb2.Verdict]]) -> dict[str, float]:
    correct = rollout_pb2.VERDICT_OUTCOME_CORRECT
    failed = (rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR, rollout_pb2.VERDICT_OUTCOME_NOT_RUN)
    counted = [[verdict for verdict in one if verdict.outcome not in failed] for one in verdicts]
    rows = [(len(one), sum(verdict.outcome == correct for verdict in one)) for one in counted if one]
    n = max((total for total, _ in rows), default=0)
    found = {"unchecked": float(sum(len(one) == 0 for one in counted))}
    if not rows:
        return found
    found[f"mean@{n}"] = sum(right / total for total, right in rows) / len(rows)
    ks = {2**power for power in range(n.bit_length())} | {n}
    for k in sorted(k for k in ks if k <= n):
        at_k = [pass_at_k(total, right, min(k, total)) for total, right in rows]
        found[f"pass@{k}"] = sum(at_k) / len(at_k)
    tokens = [verdict.tokens for one in counted for verdict in one]
    found["tokens_mean"] = sum(tokens) / len(tokens)
    return found
