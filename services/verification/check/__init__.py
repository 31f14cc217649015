"""Checks, one file each: the file's name is the check's name.

A check is a frozen dataclass, called with an answer's text and the prompt's `CheckSpec`; its fields are its knobs. It
is a pure function of both, so that its findings may be remembered. It may raise `UserError` when the spec is wrong;
anything else that it raises is our failure (INFRA_ERROR), never a wrong answer.

Class variables (or properties) that the checker reads:

- `version`: goes into every verdict and into the key under which findings are remembered;
- `in_process`: True when it is bounded and cheap enough to run inside the service; else it runs in a worker process;
- `cpu_s`: CPU seconds one answer may use in a worker; then it is a TIMEOUT;
- `wall_s`: wall seconds it may need, where that is more than the service's own limit;
- `delay_s`: seconds that a verdict is held back without work (benchmarks only).
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from services.verification.finding import Finding
from sluice.v1 import prompt_pb2

CPU_S = 2.0
"""CPU seconds per answer for a check that does not say."""


class Check(Protocol):
    """What every file of this room provides."""

    version: ClassVar[str]

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """What is true of the answer."""
        ...
