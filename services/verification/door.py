"""Verification's gRPC door: the same checks, asked directly. What it says is on no topic."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import grpc

from pipeline import parts
from pipeline.errors import UserError
from services.verification import checker as checks
from services.verification import verify
from services.verification.checker import Checker, Question
from services.verification.finding import Finding
from services.verification.handler import OnVerdict, Prompts
from services.verification.verify import Checked
from sluice.v1 import prompt_pb2, rollout_pb2, verification_pb2, verification_pb2_grpc

STREAM_BATCH = 256
POLL_S = 0.5


class Ended(NamedTuple):
    """A stream has no more requests: the caller closed it, or `error` ended the reading."""

    error: Exception | None


class VerificationDoor(verification_pb2_grpc.VerificationServiceServicer):
    """Answers `Verify`, `VerifyStream`, `ListChecks`. Bad input ends the call with INVALID_ARGUMENT and a sentence."""

    def __init__(
        self,
        checker: Checker,
        prompts: Prompts,
        delay_s: float = 0.0,
        on_verdict: OnVerdict = lambda outcome, check, wall_s: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._checker, self._prompts, self._delay_s = checker, prompts, delay_s
        self._on_verdict, self._sleep = on_verdict, sleep

    def Verify(self, request: verification_pb2.VerifyRequest, context: grpc.ServicerContext) -> rollout_pb2.Verdict:
        """Check one answer, or one whole rollout."""
        try:
            return self._verify([request])[0]
        except UserError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    def VerifyStream(
        self, requests: Iterator[verification_pb2.VerifyRequest], context: grpc.ServicerContext
    ) -> Iterator[rollout_pb2.Verdict]:
        """Check many; what has arrived by the time the last are done is checked together."""
        try:
            for batch in _batches(requests, context):
                yield from self._verify(batch)
        except UserError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    def ListChecks(
        self, request: verification_pb2.ListChecksRequest, context: grpc.ServicerContext
    ) -> verification_pb2.ListChecksResponse:
        """Every check that ships."""
        found = [
            verification_pb2.CheckInfo(name=name, title=title, version=version, unavailable=unavailable)
            for name, title, version, unavailable in checks.titles()
        ]
        return verification_pb2.ListChecksResponse(checks=found)

    def _verify(self, requests: Sequence[verification_pb2.VerifyRequest]) -> list[rollout_pb2.Verdict]:
        asked = [self._read(request) for request in requests]
        questions = [plan for _, _, plan in asked if isinstance(plan, Question)]
        found = iter(self._checker.findings(questions))
        self._sleep(max(self._delay_s, self._checker.delay_s({question.spec.check for question in questions})))
        return [
            self._verdict(rollout, prompt, plan, plan if isinstance(plan, Finding) else next(found))
            for rollout, prompt, plan in asked
        ]

    def _read(
        self, request: verification_pb2.VerifyRequest
    ) -> tuple[rollout_pb2.Rollout, prompt_pb2.Prompt | None, Question | Finding]:
        """The rollout (empty for a bare text), its prompt and what to ask. Raises `UserError`."""
        rollout = request.rollout
        prompt_id = request.prompt_id or rollout.prompt_id
        spec = request.check
        prompt = None
        if not spec.check:
            if not prompt_id:
                raise UserError("the request names no check; accepted: a check, or the id of a registered prompt")
            prompt = self._prompts(prompt_id)
            if prompt is None:
                raise UserError(f"prompt_id is {prompt_id!r}; accepted: the id of a registered prompt")
            spec = prompt.check
        elif ":" in spec.check or spec.check.endswith(".py"):
            # A caller names code that is here already; whoever registers prompts may name files and packages.
            raise UserError.choice("check", spec.check[:80], parts.names(checks.ROOM))
        self._checker.check(spec.check)
        if not request.HasField("rollout"):
            return rollout_pb2.Rollout(prompt_id=prompt_id), prompt, Question(request.answer, spec)
        plan = verify.plan(rollout, prompt or prompt_pb2.Prompt(check=spec, digest=rollout.prompt_digest))
        return rollout, prompt, plan

    def _verdict(
        self,
        rollout: rollout_pb2.Rollout,
        prompt: prompt_pb2.Prompt | None,
        plan: Question | Finding,
        found: Finding,
    ) -> rollout_pb2.Verdict:
        if found.reason == "bad_spec":
            raise UserError(found.evidence)
        name = plan.spec.check if isinstance(plan, Question) else ""
        self._on_verdict(found.name, name, found.wall_s)
        return verify.verdict(rollout, prompt, found, Checked(name, self._checker.version(name) if name else ""))


def _batches(
    requests: Iterator[verification_pb2.VerifyRequest], context: grpc.ServicerContext
) -> Iterator[list[verification_pb2.VerifyRequest]]:
    """What has arrived, in order, at least one at a time: a client may wait for each answer, or send all at once."""
    arrived: queue.Queue[object] = queue.Queue(maxsize=STREAM_BATCH)
    threading.Thread(target=_read_all, args=(requests, arrived, context), daemon=True).start()
    while context.is_active():
        try:
            batch = [arrived.get(timeout=POLL_S)]
        except queue.Empty:
            continue
        while len(batch) < STREAM_BATCH and not arrived.empty():
            batch.append(arrived.get_nowait())
        if found := [request for request in batch if not isinstance(request, Ended)]:
            yield found  # type: ignore[misc]
        if isinstance(batch[-1], Ended):
            if batch[-1].error is not None:
                raise batch[-1].error
            return


def _read_all(
    requests: Iterator[verification_pb2.VerifyRequest], arrived: queue.Queue[object], context: grpc.ServicerContext
) -> None:
    error = None
    try:
        for request in requests:
            _put(arrived, request, context)
    except Exception as raised:  # noqa: BLE001 - gRPC's abort is one; only the call's own thread can end the call
        error = raised
    _put(arrived, Ended(error), context)


def _put(arrived: queue.Queue[object], item: object, context: grpc.ServicerContext) -> None:
    while context.is_active():
        try:
            return arrived.put(item, timeout=POLL_S)
        except queue.Full:
            continue
