"""Right when the answer calls the expected tools with the expected arguments.

    accuracy = matched calls / max(expected calls, said calls)

Source: the abstract-syntax match of the Berkeley function calling leaderboard, on data that is already JSON.
Calls are read from `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, else from the answer's JSON: one call or
a list of them. `arguments` may be a JSON text, as OpenAI's API writes it.
Odd cases: a needless call costs as much as a missing one; a tool called twice matches one expected call; without
`ordered` the calls are matched greedily, which is exact because a match is an equality. Exact types, as in
`services/verification/plain.py`; arguments named in `ignore` do not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.verification import json_answer, plain
from services.verification.finding import Finding, correct, partial, unparsable, wrong
from services.verification.spec import needed, settings
from sluice.v1 import prompt_pb2

MAX_CALLS = 200
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
Call = dict[str, Any]


@dataclass(frozen=True)
class ToolCalls:
    """`spec.spec_json`: `expected`, a list of {"name", "arguments"}; `ignore`, names of arguments that do not count.

    >>> spec = prompt_pb2.CheckSpec(spec_json='{"expected": [{"name": "add", "arguments": {"a": 1}}]}')
    >>> one = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>'
    >>> ToolCalls()(one, spec).name, ToolCalls()(one + one, spec).accuracy
    ('CORRECT', 0.5)
    """

    ordered: bool = knob(False, "whether the calls must come in the expected order")
    tolerance: float = knob(0.0, "how far floats may lie apart", ge=0, le=1)
    tag: str = knob("answer", "where there is no <tool_call>: the answer is what follows the last <tag>")

    version: ClassVar[str] = "1"
    in_process: ClassVar[bool] = True

    __post_init__ = check

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT, PARTIAL, WRONG, or UNPARSABLE when no call can be read. Raises `UserError` for a bad spec."""
        expected, ignore = _expected(spec)
        try:
            said = read(answer_text, self.tag)
        except ValueError as error:
            return (
                wrong("no call")
                if not expected and "<tool_call>" not in answer_text
                else unparsable("no_call", str(error)[:500])
            )
        matched = self._matched([_without(call, ignore) for call in said], [_without(one, ignore) for one in expected])
        most = max(len(expected), len(said))
        share = sum(matched) / most if most else 1.0
        evidence = f"{sum(matched)} of {len(expected)} expected calls, {len(said)} said: {[c['name'] for c in said]}"
        found = correct(evidence) if share == 1 else partial(share, evidence) if share else wrong(evidence)
        return replace(found, tests=tuple(matched), rewards=(("calls", share),))

    def _matched(self, said: list[Call], expected: list[Call]) -> list[bool]:
        if self.ordered:
            return [at < len(said) and self._same(said[at], one) for at, one in enumerate(expected)]
        left = list(said)
        matched = []
        for one in expected:
            place = next((at for at, call in enumerate(left) if self._same(call, one)), None)
            matched.append(place is not None)
            if place is not None:
                left.pop(place)
        return matched

    def _same(self, call: Call, expected: Call) -> bool:
        return plain.same(call, expected, self.tolerance)


def read(text: str, tag: str = "answer") -> list[Call]:
    """The calls in an answer. Raises `ValueError` when there is none, or one that is no call."""
    tagged = _CALL.findall(text[-json_answer.MAX_CHARS :])
    found = [plain.loads(one) for one in tagged] if tagged else json_answer.find(text, tag)
    calls = found if isinstance(found, list) else [found]
    if len(calls) > MAX_CALLS:
        raise ValueError(f"{len(calls)} calls; accepted: {MAX_CALLS}")
    return [_call(one) for one in calls]


def _call(found: Any) -> Call:
    if isinstance(found, dict) and isinstance(found.get("function"), dict):
        found = found["function"]
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise ValueError(f"{str(found)[:80]!r} is no call; accepted: an object with name and arguments")
    arguments = found.get("arguments", {})
    if isinstance(arguments, str):
        arguments = plain.loads(arguments)
    if not isinstance(arguments, dict):
        raise ValueError(f"arguments of {found['name'][:80]!r} are no object")
    return {"name": found["name"], "arguments": arguments}


def _without(call: Call, ignore: list[str]) -> Call:
    return {"name": call["name"], "arguments": {k: v for k, v in call["arguments"].items() if k not in ignore}}


def _expected(spec: prompt_pb2.CheckSpec) -> tuple[list[Call], list[str]]:
    told = settings("tool_calls", spec, ("expected", "ignore"))
    expected = needed("tool_calls", told, "expected", list, "a list of calls")
    ignore = told.get("ignore", [])
    if not isinstance(ignore, list):
        raise UserError(f"tool_calls: ignore is {ignore!r}; accepted: a list of names")
    try:
        return [_call(one) for one in expected], ignore
    except ValueError as error:
        raise UserError(f"tool_calls: expected has {error}") from error
