"""Which rollouts a stronger check looks at as well, what it is asked, and what is counted of it.

    chosen  <=>  SHA-256(seed, request, index, attempt) / 2^64 < share

The choice is a function of the rollout's key and the run's seed: the same rollouts in whichever worker, order or try,
and nothing about an answer makes it likelier to be looked at. What is found is the verdict's `hidden_outcome`; no
reward is made of it, and it never delays a verdict's own retries.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pipeline.metrics import Meter
from pipeline.reward_hack import Watch
from pipeline.verifier_errors import BESIDE, second_look
from services.verification.checker import Question
from services.verification.worker import build
from sluice.v1 import prompt_pb2, rollout_pb2


@dataclass(frozen=True)
class SecondLook:
    """`share` of rollouts, the stronger `check`, its knobs as JSON, `spec_json` for prompts without a hidden one."""

    share: float
    check: str
    knobs_json: str = "{}"
    spec_json: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        build(self.check, self.knobs_json)  # a check or a knob that cannot be is refused when the service starts

    @classmethod
    def of(cls, share: float, part: tuple[str, dict[str, Any]], spec: dict[str, Any] | None, seed: int) -> SecondLook:
        """As the run file says it."""
        name, knobs = part
        return cls(share, name, json.dumps(knobs, sort_keys=True), "" if spec is None else json.dumps(spec), seed)

    def chosen(self, key: rollout_pb2.RolloutKey) -> bool:
        """Whether the rollout of that key is looked at.

        >>> keys = [rollout_pb2.RolloutKey(request_id=f"r{n}", attempt=1) for n in range(1000)]
        >>> sum(map(SecondLook(0.1, "math").chosen, keys)), any(map(SecondLook(0.0, "math").chosen, keys))
        (94, False)
        """
        name = f"second look/{self.seed}/{key.request_id}/{key.index}/{key.attempt}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < round(self.share * 2**64)

    def question(self, asked: Question, prompt: prompt_pb2.Prompt) -> Question:
        """What the stronger check is asked, where the first one is asked `asked`."""
        hidden = prompt.hidden
        spec = prompt_pb2.CheckSpec(
            check=hidden.check or self.check,
            answer=hidden.answer or asked.spec.answer,
            spec_json=hidden.spec_json or self.spec_json or asked.spec.spec_json,
        )
        return Question(asked.text, spec, self.knobs_json if spec.check == self.check else "")


class SecondLooks:
    """Counts, for one worker, what second looks say of the first ones; used by one thread.

    `window`: training rollouts, the first since the worker began and the newest, that the alarm's number compares.
    """

    def __init__(self, meter: Meter, window: int) -> None:
        self._meter, self._watch = meter, Watch(window)

    def __call__(self, verdict: rollout_pb2.Verdict) -> None:
        """Count one verdict that carries a `hidden_outcome`."""
        said, hidden = (
            rollout_pb2.VerdictOutcome.Name(one).removeprefix("VERDICT_OUTCOME_")
            for one in (verdict.outcome, verdict.hidden_outcome)
        )
        beside = second_look(said, hidden)
        for one in BESIDE:  # all of them, so that a rate of 0 is a number and not a gap
            counted = float(one == beside)
            self._meter.add("sluice_verification_second_looks_total", counted, check=verdict.checker, found=one)
        if beside == "apart" or verdict.purpose != prompt_pb2.PURPOSE_TRAIN:
            return
        if drift := self._watch.add(said == "CORRECT", hidden == "CORRECT"):
            self._meter.set("sluice_verification_reward_drift_sigmas", drift.sigmas)
