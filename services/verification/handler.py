"""Verification's handler: rollouts in, verdicts out, and those rollouts that deserve another try."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.verification import verify
from services.verification.checker import Checker, Question
from services.verification.finding import Finding
from services.verification.second_look import SecondLook
from services.verification.verify import Checked, Hidden
from sluice.v1 import prompt_pb2, rollout_pb2

Prompts = Callable[[str], prompt_pb2.Prompt | None]
OnVerdict = Callable[[str, str, float], None]
OnSecondLook = Callable[[rollout_pb2.Verdict], None]
MAX_TRIES_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class Verified:
    """`verdicts` to write, in the order of the rollouts; `retries` to hand on: (rollout, bounded reason)."""

    verdicts: list[rollout_pb2.Verdict]
    retries: list[tuple[rollout_pb2.Rollout, str]]


@dataclass
class VerificationHandler:
    """Verifies batches of rollouts; used by one thread.

    - `prompts`: a registered prompt by id, None when it is not known (yet)
    - `attempts`: tries at a rollout whose checking fails on our side; then its verdict says so
    - `delay_s`: artificial delay of every verdict, seconds from the rollout's end; for benchmarks
    - `on_verdict(outcome, check, wall_s)`: called for every verdict
    - `second_look`: the share of rollouts that a stronger check sees in the same batch, and that check
    - `on_second_look(verdict)`: called for every verdict that carries what a stronger check said
    """

    checker: Checker
    prompts: Prompts
    attempts: int = 3
    delay_s: float = 0.0
    on_verdict: OnVerdict = lambda outcome, check, wall_s: None
    second_look: SecondLook | None = None
    on_second_look: OnSecondLook = lambda verdict: None
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    _tries: OrderedDict[bytes, int] = field(default_factory=OrderedDict, init=False)

    def __call__(self, rollouts: Sequence[rollout_pb2.Rollout], tries: Sequence[int] | None = None) -> Verified:
        """Verify these. `tries`: which try each is, from 1, where the caller knows; else this handler counts."""
        began = self.clock()
        prompts = [self.prompts(rollout.prompt_id) for rollout in rollouts]
        plans = [verify.plan(rollout, prompt) for rollout, prompt in zip(rollouts, prompts, strict=True)]
        findings, hidden = self._findings(plans, self._second_looks(rollouts, prompts, plans))
        self._hold_back(rollouts, plans, began)
        done = Verified([], [])
        for at, rollout in enumerate(rollouts):
            attempt = tries[at] if tries else self._tries.get(_name(rollout), 0) + 1
            if findings[at].retryable and attempt < self.attempts:
                self._remember_try(rollout, attempt)
                done.retries.append((rollout, findings[at].reason))
                continue
            self._tries.pop(_name(rollout), None)
            verdict = self._verdict(rollout, prompts[at], findings[at], plans[at], attempt, hidden.get(at))
            done.verdicts.append(verdict)
        return done

    def _second_looks(
        self,
        rollouts: Sequence[rollout_pb2.Rollout],
        prompts: Sequence[prompt_pb2.Prompt | None],
        plans: Sequence[Question | Finding],
    ) -> dict[int, Question]:
        """What the stronger check is asked, by the rollout's place."""
        look = self.second_look
        return {
            at: look.question(plan, prompt)
            for at, (rollout, prompt, plan) in enumerate(zip(rollouts, prompts, plans, strict=True))
            if look and prompt and isinstance(plan, Question) and look.chosen(rollout.key)
        }

    def _findings(
        self, plans: Sequence[Question | Finding], looks: dict[int, Question]
    ) -> tuple[list[Finding], dict[int, Hidden]]:
        """Findings by place, and those of the stronger check; all are asked at once, so that they run side by side."""
        asked = {at: plan for at, plan in enumerate(plans) if isinstance(plan, Question)}
        found = self.checker.findings([*asked.values(), *looks.values()])
        first = dict(zip(asked, found[: len(asked)], strict=True))
        second = zip(looks.items(), found[len(asked) :], strict=True)
        hidden = {at: Hidden(question.spec.check, one) for (at, question), one in second}
        return [plan if isinstance(plan, Finding) else first[at] for at, plan in enumerate(plans)], hidden

    def _hold_back(
        self, rollouts: Sequence[rollout_pb2.Rollout], plans: Sequence[Question | Finding], began: float
    ) -> None:
        """Wait once for the whole batch, until its newest rollout is old enough; on no CPU."""
        delayed = [(rollout, plan) for rollout, plan in zip(rollouts, plans, strict=True) if isinstance(plan, Question)]
        delay = max(self.delay_s, self.checker.delay_s({plan.spec.check for _, plan in delayed}))
        if delay <= 0 or not delayed:
            return
        newest = max(min(began, rollout.timings.ended_ms / 1000 or began) for rollout, _ in delayed)
        self.sleep(max(0.0, newest + delay - self.clock()))

    def _verdict(
        self,
        rollout: rollout_pb2.Rollout,
        prompt: prompt_pb2.Prompt | None,
        found: Finding,
        plan: Question | Finding,
        attempt: int,
        hidden: Hidden | None,
    ) -> rollout_pb2.Verdict:
        name = plan.spec.check if isinstance(plan, Question) else ""
        self.on_verdict(found.name, name, found.wall_s)
        version = self.checker.version(name) if name else ""
        verdict = verify.verdict(rollout, prompt, found, Checked(name, version, attempt, hidden))
        if hidden:
            self.on_second_look(verdict)
        return verdict

    def _remember_try(self, rollout: rollout_pb2.Rollout, attempt: int) -> None:
        self._tries[_name(rollout)] = attempt
        while len(self._tries) > MAX_TRIES_KEPT:
            self._tries.popitem(last=False)


def _name(rollout: rollout_pb2.Rollout) -> bytes:
    return rollout.sha256 or rollout.key.SerializeToString()
