"""The verification service for other trainers: answers in, verdicts out; reward functions for TRL and for verl.

    with VerificationClient("127.0.0.1:50061") as verification:
        verdict = verification.verify("0.5", check="math", expected="1/2")

An INFRA_ERROR is the verifier's failure and says nothing of the answer, so no reward function makes a 0 of it: TRL is
told None, which it leaves out of the mean, and verl, which has no such word, is stopped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from pipeline.client import connect
from pipeline.errors import SluiceError
from sluice.v1 import prompt_pb2, rollout_pb2, verification_pb2, verification_pb2_grpc

DEADLINE_S = 300.0
TRIES = 3
UNCHECKED = (rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR, rollout_pb2.VERDICT_OUTCOME_NOT_RUN)


class VerifierFailed(SluiceError):
    """The verifier failed at every try: there is no verdict on this answer."""


class VerificationClient:
    """A verification service at `address` (host:port). A call raises `grpc.RpcError` with the service's sentence.

    Token and certificate come from the environment, as `pipeline.access` names them.
    """

    def __init__(self, address: str, deadline_s: float = DEADLINE_S) -> None:
        self._channel = connect(address)
        self._stub = verification_pb2_grpc.VerificationServiceStub(self._channel)
        self._deadline_s = deadline_s

    def verify(
        self, answer: str, check: str, expected: str = "", spec: Mapping[str, Any] | None = None
    ) -> rollout_pb2.Verdict:
        """What is true of one answer."""
        return self.verify_all([question(answer, check, expected, spec)])[0]

    def verify_all(self, questions: Iterable[verification_pb2.VerifyRequest]) -> list[rollout_pb2.Verdict]:
        """Verdicts in the order of the questions; where the verifier failed, the last of `TRIES`."""
        asked = list(questions)
        found = list(self._stub.VerifyStream(iter(asked), timeout=self._deadline_s))
        for _ in range(TRIES - 1):
            again = [at for at, one in enumerate(found) if one.outcome == rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR]
            if not again:
                break
            stream = self._stub.VerifyStream(iter([asked[at] for at in again]), timeout=self._deadline_s)
            for at, verdict in zip(again, stream, strict=True):
                found[at] = verdict
        return found

    def close(self) -> None:
        """Let the connection go."""
        self._channel.close()

    def __enter__(self) -> VerificationClient:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def question(
    answer: str, check: str, expected: str = "", spec: Mapping[str, Any] | None = None
) -> verification_pb2.VerifyRequest:
    """One answer and how to check it.

    >>> question("7", "exact", "7").check.answer
    '7'
    """
    given = prompt_pb2.CheckSpec(check=check, answer=expected, spec_json=json.dumps(spec) if spec else "")
    return verification_pb2.VerifyRequest(answer=answer, check=given)


def trl_reward(client: VerificationClient, check: str) -> Callable[..., list[float | None]]:
    """A reward function for TRL's `GRPOTrainer`: the accuracy of each completion.

    The data set's column "answer" holds what is expected, "spec", where there is one, what the check needs beside it.
    """

    def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        expected = columns.get("answer") or [""] * len(completions)
        specs = columns.get("spec") or [None] * len(completions)
        asked = zip(completions, expected, specs, strict=True)
        found = client.verify_all(question(_text(one), check, str(answer), spec) for one, answer, spec in asked)
        return [None if verdict.outcome in UNCHECKED else verdict.accuracy for verdict in found]

    reward.__name__ = f"sluice_{check}"
    return reward


def verl_score(
    client: VerificationClient, checks: Mapping[str, str], rewards: Sequence[str] = ()
) -> Callable[..., dict[str, float]]:
    """verl's `custom_reward_function`; `checks` names the check of each data source. Raises `VerifierFailed`.

    The score is the accuracy. Beside it stand the raw rewards named in `rewards`, NaN where a verdict has none of that
    name: verl makes an array of each key, so every answer must have the same ones.
    """

    def compute_score(
        data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        spec = (extra_info or {}).get("spec")
        verdict = client.verify(solution_str, checks[data_source], str(ground_truth), spec)
        if verdict.outcome in UNCHECKED:
            raise VerifierFailed(f"{checks[data_source]}: {verdict.reason} {verdict.evidence[:200]}")
        raw = {reward.name: reward.value for reward in verdict.rewards}
        return {"score": verdict.accuracy} | {name: raw.get(name, math.nan) for name in rewards}

    return compute_score


def _text(completion: Any) -> str:
    """A completion is a text, or the messages of a conversation."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
