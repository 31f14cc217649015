"""The difficulty service's gRPC door: ask what to try next, tell what came of a try, look at what is believed.

For programs that want only this service. Asking changes no belief. Telling writes verdicts with checker "external" to
the log, and the posterior changes when the stage reads them back: the log stays the only way in. Such a verdict has no
rollout digest, so it joins no rollout and nothing is trained on it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import NoReturn

import grpc

from pipeline.errors import Retryable, UserError
from services.difficulty.explain import explain
from services.difficulty.handler import Handler, Sent
from services.difficulty.seen import DIVERSITY, LARGEST, Versions
from sluice.v1 import difficulty_pb2, difficulty_pb2_grpc, prompt_pb2, rollout_pb2

EXTERNAL = "external"
"""The checker of an observation from outside the log."""
AT_MOST = 65_536
"""Choices that one call of `Next` may ask for: they are made under the lock that the stage waits for."""


@dataclass
class Door(difficulty_pb2_grpc.DifficultyServiceServicer):
    """`write` puts records on the log and returns after they are committed; `snapshot` writes the local snapshot."""

    handler: Handler
    write: Callable[[list[Sent]], None]
    snapshot: Callable[[], difficulty_pb2.SnapshotResponse] | None = None

    def Next(self, request: difficulty_pb2.NextRequest, context: grpc.ServicerContext) -> difficulty_pb2.NextResponse:
        """Choose prompts without asking generation for them."""
        self._wait_for_state(context)
        if not 1 <= request.n <= AT_MOST:
            _refuse(context, f"n is {request.n}; accepted: 1 to {AT_MOST}")
        try:
            with self.handler.lock:
                return difficulty_pb2.NextResponse(choices=self.handler.scheduler.preview(request.n))
        except UserError as error:
            _refuse(context, str(error))

    def Observe(
        self, request: difficulty_pb2.ObserveRequest, context: grpc.ServicerContext
    ) -> difficulty_pb2.ObserveResponse:
        """Put observations on the log, all or none."""
        self._wait_for_state(context)
        for seen in request.observations:
            if not 0 <= seen.accuracy <= 1:
                _refuse(context, f"accuracy of {seen.prompt_id!r} is {seen.accuracy}; accepted: 0 to 1")
            if seen.HasField("diversity") and not 0 <= seen.diversity <= 1:
                _refuse(context, f"diversity of {seen.prompt_id!r} is {seen.diversity}; accepted: 0 to 1")
        self._known(context, (seen.prompt_id for seen in request.observations), self.handler.scheduler.prompts)
        try:
            newest = self._versions(context, request)
            self.write([("verdicts", seen.prompt_id, external(seen, newest)) for seen in request.observations])
        except Retryable as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return difficulty_pb2.ObserveResponse(accepted=len(request.observations))

    def Posterior(
        self, request: difficulty_pb2.PosteriorRequest, context: grpc.ServicerContext
    ) -> difficulty_pb2.PosteriorResponse:
        """What is known of these prompts, in the order asked for."""
        self._wait_for_state(context)
        self._known(context, request.prompt_ids)
        with self.handler.lock:
            states = [self.handler.scheduler.posterior(prompt_id) for prompt_id in request.prompt_ids]
        return difficulty_pb2.PosteriorResponse(states=states)

    def Explain(
        self, request: difficulty_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> difficulty_pb2.ExplainResponse:
        """Why is this prompt chosen, or not: its state, its score, and where that stands among the others'."""
        self._wait_for_state(context)
        self._known(context, [request.prompt_id])
        with self.handler.lock:
            return explain(self.handler.scheduler, request.prompt_id)

    def Snapshot(
        self, request: difficulty_pb2.SnapshotRequest, context: grpc.ServicerContext
    ) -> difficulty_pb2.SnapshotResponse:
        """Write the local snapshot; answers when it is in its place."""
        self._wait_for_state(context)
        if self.snapshot is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this process keeps no snapshot")
        try:
            return self.snapshot()
        except Retryable as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    def _versions(self, context: grpc.ServicerContext, request: difficulty_pb2.ObserveRequest) -> int:
        """The version that counts where an observation names none; refuses versions that cannot be."""
        named = [(seen.version, seen.prompt_id) for seen in request.observations if seen.HasField("version")]
        with self.handler.lock:
            versions = self.handler.look(max(named, default=(0, ""))[0])
            newest = self.handler.scheduler.store.version
        # Where nothing was announced the newest version observed counts as the newest: an absurd one would stay it.
        accepted = versions or Versions(0, LARGEST)
        for version, prompt_id in named:
            if accepted.wrong(version, version):
                said = versions or f"at most {LARGEST}"
                _refuse(context, f"version of {prompt_id!r} is {version}; accepted: {said}")
        return newest

    def _wait_for_state(self, context: grpc.ServicerContext) -> None:
        if not self.handler.ready:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the posterior is being rebuilt from its topic; try again")

    def _known(
        self, context: grpc.ServicerContext, prompt_ids: Iterable[str], among: Container[str] | None = None
    ) -> None:
        """Refuses ids that are not `among` these; without it, ids of which nothing is known."""
        with self.handler.lock:
            known = self.handler.scheduler.store.rows if among is None else among
            unknown = sorted({name for name in prompt_ids if name not in known})
        if unknown:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no such prompts: {', '.join(map(repr, unknown))}")


def external(seen: difficulty_pb2.Observation, newest: int) -> rollout_pb2.Verdict:
    """An observation as the verdict that goes on the log."""
    outcomes = {1.0: rollout_pb2.VERDICT_OUTCOME_CORRECT, 0.0: rollout_pb2.VERDICT_OUTCOME_WRONG}
    version = seen.version if seen.HasField("version") else newest
    return rollout_pb2.Verdict(
        prompt_id=seen.prompt_id,
        outcome=outcomes.get(seen.accuracy, rollout_pb2.VERDICT_OUTCOME_PARTIAL),
        accuracy=seen.accuracy,
        checker=EXTERNAL,
        min_version=version,
        max_version=version,
        purpose=prompt_pb2.PURPOSE_TRAIN,
        rewards=[rollout_pb2.Reward(name=DIVERSITY, value=seen.diversity)] if seen.HasField("diversity") else [],
    )


def _refuse(context: grpc.ServicerContext, sentence: str) -> NoReturn:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, sentence)
    raise AssertionError("abort raises")
