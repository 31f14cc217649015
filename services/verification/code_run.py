"""Runs the tests of a program in jails, and compares outside, on plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from services.verification import plain
from services.verification.code_tests import Call, Tests
from services.verification.sandbox import Limits, Ran
from services.verification.sandbox.desk import Keeper
from services.verification.sandbox.running import BYSTANDER, Running
from services.verification.sandbox.wire import NotPlain, pack, unpack

NOTE_CHARS = 300
TESTS_CPU_S = 20.0


@dataclass(frozen=True, slots=True)
class Result:
    """Of one test. `kind` says how it failed: "wrong", "timeout", "idle", "violation", "syntax", "infra"."""

    passed: bool
    kind: str = ""
    note: str = ""
    cpu_s: float = 0.0

    @property
    def final(self) -> bool:
        """Whether the tests after it are not worth running."""
        return self.kind in ("timeout", "idle", "violation", "syntax", "infra")


def run(source: str, tests: Tests, limits: Limits, keeper: Keeper) -> list[Result]:
    """One result per test, in their order; one in all for tests in Python. Raises `JailLost`.

    The first test that has to be ended by force is the last that is run: a program that hangs, hangs once.
    """
    source = f"{tests.prefix}\n{source}" if tests.prefix else source
    if tests.python:
        return [_python(source, tests, limits, keeper)]
    results = _calls(source, tests, limits, keeper) if tests.calls else _programs(source, tests, limits, keeper)
    missing = len(tests.calls or tests.programs) - len(results)
    return results + [replace(results[-1], note="not run", cpu_s=0.0)] * missing


def _programs(source: str, tests: Tests, limits: Limits, keeper: Keeper) -> list[Result]:
    results: list[Result] = []
    for case in tests.programs:
        with keeper.borrow("candidate") as jail:
            running = jail.start("program", limits, {"source": source}, case.given)
            said = _first(running)
            ran = running.finish()
        if said is not None:
            return [Result(False, "syntax", str(said.get("syntax"))[:NOTE_CHARS])]
        results.append(_stdout(ran, case.expected, tests.tolerance))
        if results[-1].final:
            break
    return results


def _first(running: Running) -> dict[str, Any] | None:
    """What is said before the program runs: only that it is no program. The program itself has no channel."""
    try:
        return running.ask()
    except ValueError:
        return None


def _stdout(ran: Ran, expected: str, tolerance: float) -> Result:
    fault = _fault(ran)
    if fault is not None:
        return fault
    said = ran.stdout.decode("utf-8", "replace")
    if same_output(said, expected, tolerance):
        return Result(True, cpu_s=ran.cpu_s)
    return Result(False, "wrong", f"wrote {said[:100]!r}, expected {expected[:100]!r}", ran.cpu_s)


def same_output(said: str, expected: str, tolerance: float = 0.0) -> bool:
    r"""Whether two outputs are equal but for white space at the ends of lines and of the whole.

    With a `tolerance`, words that are numbers may lie so far apart.

    >>> same_output("1 2 \n", "1 2"), same_output("12", "1 2")
    (True, False)
    >>> same_output("0.50", "0.5"), same_output("0.50", "0.5", 1e-6)
    (False, True)
    """
    ours = [line.rstrip() for line in said.strip().splitlines()]
    theirs = [line.rstrip() for line in expected.strip().splitlines()]
    if ours == theirs:
        return True
    if not tolerance or len(ours) != len(theirs):
        return False
    words = [(one.split(), other.split()) for one, other in zip(ours, theirs, strict=True)]
    return all(
        len(one) == len(other) and all(_near(a, b, tolerance) for a, b in zip(one, other, strict=True))
        for one, other in words
    )


def _near(said: str, expected: str, tolerance: float) -> bool:
    if said == expected:
        return True
    try:
        return plain.same(float(said), float(expected), tolerance)
    except ValueError:
        return False


def _calls(source: str, tests: Tests, limits: Limits, keeper: Keeper) -> list[Result]:
    results: list[Result] = []
    while len(results) < len(tests.calls) and not (results and results[-1].final):
        with keeper.borrow("candidate") as jail:
            running = jail.start("calls", limits, {"source": source, "entry": tests.entry})
            opened = _opened(running)
            results += _session(running, tests, len(results)) if opened is None else [opened]
    return results


def _opened(running: Running) -> Result | None:
    """None when the program's functions are there to be called."""
    try:
        said = running.ask()
    except ValueError as error:
        running.stop("violation")
        return Result(False, "violation", f"channel: {error}")
    if said is None:
        ran = running.finish()
        return _fault(ran) or Result(False, "wrong", "it ended before it could be called", ran.cpu_s)
    if "ready" in said:
        return None
    if "syntax" not in said:
        running.stop("violation")
        return Result(False, "violation", "channel: it answered before it was asked")
    running.finish()
    return Result(False, "syntax", str(said["syntax"])[:NOTE_CHARS])


def _session(running: Running, tests: Tests, done: int) -> list[Result]:
    """Calls into one process, until all are done or it ends."""
    results: list[Result] = []
    for case in tests.calls[done:]:
        try:
            said = running.ask(case.message)
        except ValueError as error:
            running.stop("violation")
            return [*results, Result(False, "violation", f"channel: {error}")]
        if said is None:
            ran = running.finish()
            ended = Result(False, "wrong", f"it ended during the call: {ran.stderr[-200:]!r}", ran.cpu_s)
            return [*results, _fault(ran) or ended]
        results.append(_value(said, case, tests.tolerance))
    ran = running.finish()
    results[-1] = replace(results[-1], cpu_s=ran.cpu_s)
    if ran.flooded:
        results[-1] = Result(False, "violation", "output_limit: it wrote without end", ran.cpu_s)
    return results


def _value(said: dict[str, Any], case: Call, tolerance: float) -> Result:
    if "value" not in said:
        return Result(False, "wrong", str(said)[:NOTE_CHARS])
    try:
        value = unpack(said["value"])
    except ValueError as error:
        return Result(False, "violation", f"channel: {error}")
    if plain.same(value, case.expected, tolerance, case.loose):
        return Result(True)
    return Result(False, "wrong", f"returned {str(value)[:100]}, expected {str(case.expected)[:100]}")


def _python(source: str, tests: Tests, limits: Limits, keeper: Keeper) -> Result:
    theirs = replace(limits, cpu_s=TESTS_CPU_S, wall_s=TESTS_CPU_S + 4 * limits.wall_s)
    with keeper.borrow("candidate") as cell, keeper.borrow("tests") as room:
        running = cell.start("calls", limits, {"source": source, "entry": tests.entry})
        opened = _opened(running)
        if opened is not None:
            return opened
        given = {"source": f"{tests.prefix}\n{tests.python}", "entry": tests.check, "candidate": tests.entry}
        judge = room.start("tests", theirs, given)
        fault = None
        while (asked := judge.ask()) is not None and "args" in asked:
            answer, fault = _relay(running, asked)
            if fault is not None:
                break
            asked = None
            judge.say(answer)
        if fault is not None:
            judge.stop(BYSTANDER)
            return fault
        ended = judge.finish()
        ran = running.finish()
        return _told(asked, ended, ran)


def _relay(running: Running, asked: dict[str, Any]) -> tuple[dict[str, Any], Result | None]:
    """One call into the candidate's jail; what it said, as plain data made here anew, or how it failed."""
    try:
        said = running.ask(asked)
        if said is not None and "value" in said:
            said = {"value": pack(unpack(said["value"]))}
    except (ValueError, NotPlain) as error:
        running.stop("violation")
        return {}, Result(False, "violation", f"channel: {error}")
    if said is None:
        ran = running.finish()
        return {}, _fault(ran) or Result(False, "wrong", "it ended during a call", ran.cpu_s)
    return said, None


def _told(asked: dict[str, Any] | None, ended: Ran, ran: Ran) -> Result:
    if asked is not None and asked.get("passed") is True and ended.exit == 0 and not ran.flooded:
        return Result(True, cpu_s=ran.cpu_s)
    if ran.flooded:
        return Result(False, "violation", "output_limit: it wrote without end", ran.cpu_s)
    if asked is not None and "failed" in asked:
        return Result(False, "wrong", str(asked["failed"])[:NOTE_CHARS], ran.cpu_s)
    # The tests themselves did not come to an end: that says nothing of the candidate.
    return Result(False, "infra", f"the tests ended early: {ended.why or ended.exit} {str(asked)[:100]}", ran.cpu_s)


def _fault(ran: Ran) -> Result | None:
    """What is wrong with how a program ended; None when it ended by itself, content."""
    if ran.why == "wall":
        kind = "infra" if ran.starved else "idle"
        return Result(False, kind, "kept from a CPU" if ran.starved else "it waited, using no CPU", ran.cpu_s)
    if ran.why in ("cpu", "memory"):
        return Result(False, "timeout", f"{ran.why}_limit: used {ran.cpu_s:.2f} s of CPU", ran.cpu_s)
    if ran.why == "output" or ran.flooded:
        return Result(False, "violation", "output_limit: it wrote without end", ran.cpu_s)
    if ran.exit != 0:
        last = ran.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return Result(False, "wrong", f"exit code {ran.exit} {''.join(last)[:200]}", ran.cpu_s)
    return None
