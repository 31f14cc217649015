"""A stated artificial delay in front of another check: what a benchmark uses for a slow verifier."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pipeline import parts
from pipeline.errors import UserError
from services.verification.check import CPU_S
from services.verification.finding import Finding
from sluice.v1 import prompt_pb2


@dataclass(frozen=True)
class Delayed:
    """Checks with `inner`; its verdict is given out `seconds` after the rollout ended, not sooner.

    Calling it does not wait: whoever gives verdicts out holds them back by `delay_s`, many at once, on no CPU.
    """

    seconds: float
    inner: str = "reasoning_gym"

    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        if not 0 <= self.seconds <= 60:
            raise UserError(f"delayed: seconds is {self.seconds}; accepted: 0 to 60")
        if self.inner == "delayed":
            raise UserError("delayed: inner is 'delayed'; accepted: another check")

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """What `inner` finds, at once."""
        return self._check(answer_text, spec)

    @property
    def delay_s(self) -> float:
        """How long a verdict is held back, seconds."""
        return self.seconds

    @property
    def in_process(self) -> bool:
        """As `inner`."""
        return getattr(self._check, "in_process", False)

    @property
    def cpu_s(self) -> float:
        """As `inner`."""
        return getattr(self._check, "cpu_s", CPU_S)

    @cached_property
    def _check(self) -> Any:
        return parts.load("verification.check", self.inner)
