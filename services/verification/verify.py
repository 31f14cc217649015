"""From a rollout to a verdict: what there is to check, and what is written about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.verification.checker import Question
from services.verification.finding import Finding, infra_error, not_run
from sluice.v1 import prompt_pb2, rollout_pb2

ENDED_WITHOUT_ANSWER = {
    rollout_pb2.ENDING_ABORTED: "aborted",
    rollout_pb2.ENDING_EXPIRED: "expired",
    rollout_pb2.ENDING_FAILED: "failed",
}
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Hidden:
    """What a stronger check found of the same answer."""

    checker: str
    found: Finding


@dataclass(frozen=True, slots=True)
class Checked:
    """With what a finding was made. `attempt` counts tries at verifying, from 1. `hidden`: a second look, if any."""

    checker: str = ""
    version: str = ""
    attempt: int = 1
    hidden: Hidden | None = None


def answer_text(rollout: rollout_pb2.Rollout) -> str:
    """What the rollout answers: the text of its last call."""
    return rollout.calls[-1].text if rollout.calls else ""


def plan(rollout: rollout_pb2.Rollout, prompt: prompt_pb2.Prompt | None) -> Question | Finding:
    """What to ask about a rollout, or what is known of it without asking.

    A rollout that ended without an answer is NOT_RUN. An unknown prompt is an INFRA_ERROR that another try may cure,
    for the topic of prompts may lag. A prompt that is not the one the rollout was made for is one that never passes.
    """
    if rollout.ending in ENDED_WITHOUT_ANSWER:
        return not_run((rollout.reason or ENDED_WITHOUT_ANSWER[rollout.ending])[:MAX_REASON_CHARS])
    if not rollout.calls:
        return not_run("no_calls")
    if prompt is None:
        return infra_error("unknown_prompt", f"prompt {rollout.prompt_id!r} is not registered")
    if rollout.prompt_digest and rollout.prompt_digest != prompt.digest:
        return infra_error(
            "prompt_changed",
            f"rollout is of digest {rollout.prompt_digest.hex()[:16]}, prompt has {prompt.digest.hex()[:16]}",
        )
    return Question(answer_text(rollout), prompt.check)


def verdict(
    rollout: rollout_pb2.Rollout, prompt: prompt_pb2.Prompt | None, found: Finding, checked: Checked
) -> rollout_pb2.Verdict:
    """The verdict on a rollout. It joins that rollout alone: it carries the rollout's key and digest."""
    versions = [span.version for call in rollout.calls for span in call.spans]
    hidden = checked.hidden
    return rollout_pb2.Verdict(
        key=rollout.key,
        rollout_sha256=rollout.sha256,
        prompt_id=rollout.prompt_id,
        group_id=rollout.group_id,
        outcome=found.outcome,
        accuracy=found.accuracy,
        rewards=[rollout_pb2.Reward(name=name, value=value) for name, value in found.rewards],
        tests=found.tests,
        evidence=found.evidence,
        checker=checked.checker,
        checker_version=checked.version,
        wall_s=found.wall_s,
        cpu_s=found.cpu_s,
        reason=found.reason,
        attempt=checked.attempt,
        min_version=min(versions, default=0),
        max_version=max(versions, default=0),
        purpose=rollout.purpose,
        tokens=sum(len(call.tokens) for call in rollout.calls),
        domain=rollout.domain or (prompt.domain if prompt else ""),
        family=rollout.family or (prompt.family if prompt else ""),
        hidden_outcome=hidden.found.outcome if hidden else rollout_pb2.VERDICT_OUTCOME_UNSPECIFIED,
        hidden_checker=hidden.checker if hidden else "",
        hidden_evidence=hidden.found.evidence if hidden else "",
    )
