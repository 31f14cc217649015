"""The tests of a program, as a prompt's spec tells them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from services.verification.sandbox.wire import pack
from services.verification.spec import settings
from sluice.v1 import prompt_pb2

_KEYS = ("tests", "entry", "python", "check", "prefix")
_TEST_KEYS = ("input", "output", "args", "args_python", "kwargs", "expected", "expected_python")
MAX_TESTS = 1000


@dataclass(frozen=True, slots=True)
class Stdio:
    """stdin in, stdout out."""

    given: bytes
    expected: str


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments in, a value out; `loose`: it was written in JSON, where a tuple is a list."""

    message: dict[str, Any]
    expected: Any
    loose: bool


@dataclass(frozen=True, slots=True)
class Tests:
    """All tests of one program, of one kind: `programs`, `calls` of `entry`, or `python`, source of tests in Python."""

    programs: tuple[Stdio, ...] = ()
    calls: tuple[Call, ...] = ()
    entry: str = ""
    python: str = ""
    check: str = "check"
    prefix: str = ""
    tolerance: float = 0.0


def read(spec: prompt_pb2.CheckSpec, tolerance: float = 0.0) -> Tests:
    """The tests in `spec.spec_json`. Raises `UserError`."""
    told = settings("code_python", spec, _KEYS)
    texts = {key: told.get(key, "") for key in ("entry", "python", "prefix")} | {"check": told.get("check", "check")}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise UserError(f"code_python: {key} is {value!r}; accepted: a text")
    if texts["python"]:
        if not texts["entry"] or told.get("tests"):
            raise UserError("code_python: tests in python need entry, and no other tests; accepted: one kind of tests")
        return Tests(tolerance=tolerance, **texts)
    tests = told.get("tests")
    if not isinstance(tests, list) or not 0 < len(tests) <= MAX_TESTS:
        raise UserError(
            f"code_python: tests is {str(tests)[:80]!r}; accepted: a list of 1 to {MAX_TESTS} tests, or python"
        )
    for one in tests:
        _refuse_odd(one)
    if texts["entry"]:
        return Tests(calls=tuple(map(_call, tests)), tolerance=tolerance, **texts)
    return Tests(programs=tuple(map(_stdio, tests)), tolerance=tolerance, **texts)


def _refuse_odd(given: Any) -> None:
    if not isinstance(given, dict):
        raise UserError(f"code_python: a test is {str(given)[:80]!r}; accepted: an object")
    for key in given:
        if key not in _TEST_KEYS:
            raise UserError.choice("code_python: a key of a test", key, _TEST_KEYS)


def _stdio(given: dict[str, Any]) -> Stdio:
    if not isinstance(given.get("output"), str) or not isinstance(given.get("input", ""), str):
        raise UserError("code_python: a test has no output; accepted: input and output, or entry and args")
    return Stdio(given.get("input", "").encode(), given["output"])


def _call(given: dict[str, Any]) -> Call:
    if ("expected" in given) == ("expected_python" in given):
        raise UserError("code_python: a test has no expected value; accepted: expected or expected_python")
    args, kwargs = _literal(given, "args", []), given.get("kwargs", {})
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        raise UserError("code_python: args is no list or kwargs is no object; accepted: a list, and an object")
    message = {"args": pack(list(args)), "kwargs": pack(kwargs)}
    return Call(message, _literal(given, "expected", None), "expected" in given)


def _literal(given: dict[str, Any], key: str, otherwise: Any) -> Any:
    if f"{key}_python" not in given:
        return given.get(key, otherwise)
    try:
        return ast.literal_eval(given[f"{key}_python"])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise UserError(f"code_python: {key}_python is no literal ({error}); accepted: a Python literal") from error
