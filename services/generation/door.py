"""Generation's gRPC door: rollouts for other programs and for evaluation, from the same engine, outside the log."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from queue import Empty, SimpleQueue

import grpc

from pipeline.errors import UserError
from services.generation import policy
from services.generation.desk import Desk, Each, Ticket
from services.generation.engine.api import EngineDied
from services.generation.prompting import Context
from services.generation.versions import Versions
from sluice.v1 import generation_pb2, generation_pb2_grpc, prompt_pb2, rollout_pb2

LONGEST_CALL_S = 3600.0
WAIT_S = 0.2


class Door(generation_pb2_grpc.GenerationServiceServicer):
    """Every call ends by its deadline: what has not been said by then ends EXPIRED or is taken back."""

    def __init__(self, desk: Desk, versions: Versions) -> None:
        self.desk, self.versions = desk, versions
        self._numbers = itertools.count(1)

    def Generate(
        self, request: generation_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> generation_pb2.GenerateResponse:
        """See the proto."""
        found = sorted(self._sample(request, context), key=lambda rollout: rollout.key.index)
        return generation_pb2.GenerateResponse(rollouts=found)

    def GenerateStream(
        self, request: generation_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[rollout_pb2.Rollout]:
        """See the proto."""
        yield from self._sample(request, context)

    def Hold(self, request: generation_pb2.HoldRequest, context: grpc.ServicerContext) -> generation_pb2.HoldResponse:
        """See the proto."""
        if request.release:
            self.versions.release(request.release)
            return generation_pb2.HoldResponse(hold_id=request.release, version=self.desk.engine.version)
        version = request.version if request.HasField("version") else None
        hold_id, held = self._hold(context, version, request.seconds)
        return generation_pb2.HoldResponse(hold_id=hold_id, version=held)

    def _sample(
        self, call: generation_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[rollout_pb2.Rollout]:
        request, rendered = self._accepted(call.request, context)
        seconds = _seconds_left(context)
        hold_id = self._hold(context, call.version, seconds)[0] if call.HasField("version") else ""
        said: SimpleQueue[rollout_pb2.Rollout] = SimpleQueue()
        ticket = self._opened(request, said.put, rendered, context)
        try:
            yield from self._collect(said, request.n, context)
        finally:
            self._leave(ticket, hold_id)

    def _opened(
        self, request: prompt_pb2.RolloutRequest, each: Each, rendered: Context, context: grpc.ServicerContext
    ) -> Ticket:
        try:
            return self.desk.open(request, lambda _: None, each, rendered)
        except EngineDied as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise

    def _collect(
        self, said: SimpleQueue[rollout_pb2.Rollout], n: int, context: grpc.ServicerContext
    ) -> Iterator[rollout_pb2.Rollout]:
        left = n
        while left and context.is_active():
            try:
                rollout = said.get(timeout=WAIT_S)
            except Empty:
                continue
            left -= 1
            yield rollout

    def _leave(self, ticket: Ticket, hold_id: str) -> None:
        if len(ticket.made) < len(ticket.jobs):
            self.desk.abort([ticket])
        if hold_id:
            self.versions.release(hold_id)

    def _accepted(
        self, asked: prompt_pb2.RolloutRequest, context: grpc.ServicerContext
    ) -> tuple[prompt_pb2.RolloutRequest, Context]:
        """The request, its deadline no later than the call's, and its context; refused when it cannot be sampled."""
        request = prompt_pb2.RolloutRequest()
        request.CopyFrom(asked)
        request.request_id = request.request_id or f"call-{next(self._numbers)}"
        request.attempt = request.attempt or 1
        if sentence := policy.refusal(request):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, sentence)
        rendered = self.desk.prompter.render(request)
        if rendered.sentence:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, rendered.sentence)
        deadline_ms = int((time.time() + _seconds_left(context)) * 1000)
        request.deadline_ms = min(request.deadline_ms or deadline_ms, deadline_ms)
        return request, rendered

    def _hold(self, context: grpc.ServicerContext, version: int | None, seconds: float) -> tuple[str, int]:
        try:
            return self.versions.hold(version, seconds)
        except UserError as error:
            wrong = version is not None and version != self.desk.engine.version
            code = grpc.StatusCode.FAILED_PRECONDITION if wrong else grpc.StatusCode.INVALID_ARGUMENT
            context.abort(code, str(error))
            raise


def _seconds_left(context: grpc.ServicerContext) -> float:
    left = context.time_remaining()
    return LONGEST_CALL_S if left is None else min(max(left, 0.001), LONGEST_CALL_S)
