"""The verification service as one process: a pool of checking processes, the stage, the door."""

from __future__ import annotations

import time
from collections import defaultdict

import grpc
from google.protobuf.message import Message

from pipeline.data.prompts import REDEFINED, PromptCache, dead_letter
from pipeline.log.api import Position
from pipeline.serve import Context
from pipeline.stage import Output
from pipeline.ways import run_batch
from services.verification.checker import Checker
from services.verification.door import VerificationDoor
from services.verification.handler import VerificationHandler
from services.verification.pool import Pool
from services.verification.second_look import SecondLook, SecondLooks
from services.verification.shuffle import Shuffle
from sluice.v1 import control_pb2, prompt_pb2, rollout_pb2, verification_pb2, verification_pb2_grpc

ALARMING = ("violation", "infra_error")
"""Outcomes that an alert asks for."""


def build(context: Context) -> VerificationService:
    """The service of this process."""
    return VerificationService(context)


class VerificationService:
    """Stage and door over one pool."""

    tick_s = 0.25

    def __init__(self, context: Context) -> None:
        self.context = context
        run = context.run.verification
        self.pool = Pool(run.pool)
        self.pool.warm()
        self.shuffle = Shuffle(context.run.seed) if run.shuffle else None
        self.checker = Checker(self.pool, run.checks, wall_s=run.timeout_s)
        look = run.second_look
        self.prompts = PromptCache(context.log, context.names)
        self.prompts.news(wait=True)
        self.verdicts, self._told = 0, 0
        self._counted: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.handler = VerificationHandler(
            self.checker,
            self.prompts.get,
            attempts=run.tries,
            delay_s=run.delay_s,
            on_verdict=self._count,
            second_look=SecondLook.of(look.share, look.part(), look.spec, context.run.seed) if look.share else None,
            on_second_look=SecondLooks(context.meter, look.window),
            sleep=context.life.sleep,
        )

    def register(self, server: grpc.Server) -> list[str]:
        """Its craft on the door."""
        door = VerificationDoor(self.checker, self._known, on_verdict=lambda outcome, check, wall_s: None)
        verification_pb2_grpc.add_VerificationServiceServicer_to_server(door, server)
        return [verification_pb2.DESCRIPTOR.services_by_name["VerificationService"].full_name]

    def run(self) -> None:
        """Read rollouts, write verdicts."""
        stage = self.context.stage
        run_batch(stage, self, ["rollouts", "rollouts-retry"], "verification", f"verification.{stage.worker_id}")

    def restore(self) -> None:
        """What it needs to know are the prompts. Dead letters of them that were not committed are written again."""
        self._told = 0
        self.prompts.news(wait=True)

    def __call__(self, nouns: list[Message], offsets: dict[Position, int]) -> list[Output]:
        """Verdicts, and rollouts whose checking failed on our side for another worker to try."""
        del self.prompts.refused[: self._told]  # a call follows the commit of the one before
        outputs = self._verified([noun for noun in nouns if isinstance(noun, rollout_pb2.Rollout)])
        letters = [dead_letter(one, REDEFINED, "verification", int(time.time() * 1000)) for one in self.prompts.refused]
        self._told = len(letters)
        return outputs + [Output("dead-letters", letter.key.decode(), letter) for letter in letters]

    def _verified(self, rollouts: list[rollout_pb2.Rollout]) -> list[Output]:
        if not rollouts:
            return []
        begun = time.monotonic()
        done = self.handler(rollouts, [rollout.failed_checks + 1 for rollout in rollouts])
        self._publish()
        if self.shuffle is not None:
            self.shuffle(done.verdicts)
        outputs = [Output("verdicts", verdict.prompt_id, verdict) for verdict in done.verdicts]
        for rollout, reason in done.retries:
            rollout.failed_checks += 1
            self.context.meter.add("sluice_verification_retries_total", reason=reason)
            outputs.append(Output("rollouts-retry", rollout.prompt_id, rollout))
        self.context.meter.worked(0.0 if self.handler.delay_s else time.monotonic() - begun)
        return outputs

    def poison(self, ids: dict[str, str], reason: str) -> list[Output]:
        """The learner reads the same rollouts and ends the one that cannot be read."""
        return []

    def waiting_for(self) -> str:
        """Rollouts."""
        return "rollouts"

    def idle(self) -> bool:
        """It holds nothing between two batches."""
        return True

    def status(self, status: control_pb2.WorkerStatus) -> None:
        """Verdicts, and what waits for one."""
        names = self.context.names
        backlog = self.context.log.backlog(names.own("verification"), names.topic("rollouts"))
        status.counters["verdicts"] = self.verdicts
        status.gauges["backlog"] = backlog
        self.context.meter.set("sluice_stage_backlog", backlog, topic="rollouts")

    def close(self) -> None:
        """End the pool."""
        self.pool.close()
        self.prompts.close()

    def _known(self, prompt_id: str) -> prompt_pb2.Prompt | None:
        # The door's threads do not share the stage's follower: they see what the stage has read.
        return self.prompts.by_id.get(prompt_id)

    def _count(self, outcome: str, check: str, wall_s: float) -> None:
        self.verdicts += 1
        self._counted[(check or "none", outcome.lower())].append(wall_s)

    def _publish(self) -> None:
        """A batch at a time is cheaper than a verdict at a time."""
        meter = self.context.meter
        for check in {check for check, _ in self._counted}:
            for outcome in ALARMING:  # also where there are none, so that the first one is a rise
                meter.add("sluice_verification_verdicts_total", 0.0, check=check, outcome=outcome)
        for (check, outcome), walls_s in self._counted.items():
            meter.add("sluice_verification_verdicts_total", len(walls_s), check=check, outcome=outcome)
            meter.observe_all("sluice_verification_seconds", ((wall_s, "") for wall_s in walls_s), check=check)
        self._counted.clear()
