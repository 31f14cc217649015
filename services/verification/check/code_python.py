"""Runs a Python program against tests, in a sandbox; says which of them passed.

    accuracy = tests passed / tests;   CORRECT  <=>  all passed

Source: the tests of HumanEval (arXiv:2107.03374), APPS and LiveCodeBench; what those run in their own process runs here
behind walls (`services/verification/sandbox/`). Three kinds of tests:

- `tests` with `input` and `output`: the program reads stdin and writes stdout, in a fresh process for each test;
- `tests` with `args`, `kwargs` and `expected`, and `entry`, the function's name ("Solution.solve" makes a `Solution`
  for each call): calls of plain data into one process, a new one after each that died;
- `python`, tests in Python, with `check`, the name of a function in them that is given the candidate: they run in a
  jail of their own and call the candidate's jail through a proxy of plain data. `prefix` is code that both see.

The program never holds an expected output. Results are compared outside, with exact types; JSON has no tuples, so a
tuple equals a list that was expected in JSON, and `expected_python` (a literal) is exact. Exit code 0 is never a pass.
Odd cases: a test passes only when the program ended by itself with exit code 0 and wrote no more than is kept. The
first test that is ended by force is the last that is run; those behind it count as failed. Where no test passed and the
first one used up its CPU limit or its memory, it is a TIMEOUT; one that only waited is WRONG ("idle"), unless it was
kept from a CPU: then it is an INFRA_ERROR. Writing without end, or what is no plain data on the private channel, is a
VIOLATION.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from pipeline.knobs import check, knob
from services.verification import code_run, code_tests
from services.verification.code_run import Result
from services.verification.finding import Finding, correct, infra_error, partial, timeout, unparsable, violation, wrong
from services.verification.sandbox import JailLost, Limits, desk, walls
from sluice.v1 import prompt_pb2

_FENCE = re.compile(r"```(?:python|py|python3|Python)?[ \t]*\r?\n(.*?)(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True)
class CodePython:
    """
    One of two tests passes: accuracy 1/2, tests (True, False).

    - `reuse`: whether a jail serves one job after another (each still in a process of its own, everything else killed
      and emptied between) or every job gets a jail of its own
    """

    cpu_s: float = knob(2.0, "CPU time of one test, all processes of the program together", unit="s", gt=0, le=300)
    idle_s: float = knob(6.0, "wall time of one test: a guard, it decides no TIMEOUT", unit="s", gt=0, le=900)
    memory_mb: int = knob(512, "memory of one test, all processes together", unit="MiB", ge=32)
    output_kb: int = knob(1024, "output that is kept; a test that writes more fails", unit="KiB", ge=1, le=65536)
    processes: int = knob(64, "processes and threads at one time", ge=1, le=512)
    max_chars: int = knob(200_000, "a longer program is not run", unit="characters", ge=1)
    tolerance: float = knob(0.0, "how far two floats may lie apart", ge=0, le=1)
    reuse: bool = knob(True, "whether a jail serves more than one job")

    version: ClassVar[str] = "2"

    __post_init__ = check

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """What the tests say. Raises `UserError` for a spec that cannot be used."""
        if reason := walls.refusal():
            return infra_error("no_sandbox", reason)
        tests = code_tests.read(spec, self.tolerance)
        source = code(answer_text)
        if not source.strip():
            return unparsable("no_code")
        if len(source) > self.max_chars:
            return unparsable("too_long", f"{len(source)} characters; accepted: {self.max_chars}")
        limits = Limits(
            self.cpu_s, max(self.idle_s, 2 * self.cpu_s), self.memory_mb, self.output_kb, 16, self.processes
        )
        try:
            results = code_run.run(source, tests, limits, desk.keeper(self.reuse))
        except JailLost as error:
            return infra_error("sandbox_lost", str(error))
        return judge(results)

    @property
    def wall_s(self) -> float:
        """Wall seconds that a check may need: the guard of many slow tests."""
        return 60.0 + 2 * max(self.idle_s, 2 * self.cpu_s)

    @staticmethod
    def walls() -> list[tuple[str, bool, str]]:
        """The sandbox's walls on this machine: (name, whether it stands, what was found and the cure)."""
        return [(wall.name, wall.stands, wall.found) for wall in walls.examine()]

    @staticmethod
    def unavailable() -> str:
        """Why no program may be run here; empty when it may."""
        return walls.refusal()


def code(text: str) -> str:
    r"""The program in an answer: the last fenced block, else the whole text.

    >>> code("so:\n```python\nprint(1)\n```\nbye"), code("print(2)")
    ('print(1)\n', 'print(2)')
    """
    found = _FENCE.findall(text)
    return found[-1] if found else text


def judge(results: list[Result]) -> Finding:
    """One finding of all tests. Pure.

    >>> judge([Result(True), Result(False, "timeout", "cpu")]).name, judge([Result(False, "timeout")] * 2).name
    ('PARTIAL', 'TIMEOUT')
    """
    passed = tuple(one.passed for one in results)
    share, cpu_s = sum(passed) / len(passed), sum(one.cpu_s for one in results)
    kinds = [one.kind for one in results]
    evidence = f"{sum(passed)} of {len(passed)} tests passed"
    evidence += "".join(f"; test {n}: {r.kind} {r.note}" for n, r in enumerate(results, 1) if not r.passed)[:1500]
    first = next((one for one in results if not one.passed), None)
    if first is None:
        found = correct(evidence)
    elif "infra" in kinds:
        found = infra_error("wall_limit", evidence)
    elif "violation" in kinds:
        found = violation(results[kinds.index("violation")].note.split(":")[0][:40], evidence)
    elif share:
        found = partial(share, evidence)
    elif first.kind == "syntax":
        found = unparsable("syntax", evidence)
    elif first.kind == "timeout":
        found = timeout(first.note.split(":")[0] or "cpu_limit", cpu_s, evidence)
    else:
        found = wrong(evidence, reason="idle" if first.kind == "idle" else "")
    return found.with_tests(passed, (("tests", share),) if found.rewarded else (), cpu_s)
