"""What a fork of the zygote does in the end: run a program, answer calls, or run tests against a candidate elsewhere.

Each kind first reads one frame on its private channel, file descriptor 3: the source, and what is to be called. A text
that is no Python says so there. A program that reads stdin has no channel once it runs.
"""

from __future__ import annotations

import os
import runpy
import sys
from typing import Any

from services.verification.sandbox.wire import HEAD, MAX_FRAME, NotPlain, frame, pack, unframe, unpack

SOURCE = "/tmp/answer.py"
CHANNEL = 3


def _read() -> dict[str, Any] | None:
    """The next frame on the channel; None when the other side hung up."""
    head = _exactly(HEAD.size)
    size = HEAD.unpack(head)[0] if len(head) == HEAD.size else MAX_FRAME + 1
    if size > MAX_FRAME:
        return None
    return unframe(bytearray(head + _exactly(size)))


def _exactly(size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        data = os.read(CHANNEL, size - len(found))
        if not data:
            break
        found += data
    return bytes(found)


def _write(message: Any) -> None:
    data = memoryview(frame(message))
    while data:
        data = data[os.write(CHANNEL, data) :]


def _save(source: str) -> bool:
    """Write the source where a traceback finds it; False, and said so, when it is no Python."""
    try:
        compile(source, SOURCE, "exec", dont_inherit=True)
        with open(SOURCE, "w", encoding="utf-8") as file:
            file.write(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        _write({"syntax": f"{type(error).__name__}: {error}"[:500]})
        return False
    return True


def _program() -> int:
    """Read stdin, write stdout."""
    given = _read()
    if given is None or not _save(given["source"]):
        return 1
    os.close(CHANNEL)
    sys.argv[:] = [SOURCE]
    runpy.run_path(SOURCE, run_name="__main__")
    return 0


def _calls() -> int:
    """Define functions, then answer calls of one of them until the other side hangs up."""
    given = _read()
    if given is None or not _save(given["source"]):
        return 1
    namespace = runpy.run_path(SOURCE, run_name="answer")
    _write({"ready": True})
    while (call := _read()) is not None:
        _write(_answer(namespace, given["entry"], call))
    return 0


def _answer(namespace: dict[str, Any], entry: str, call: dict[str, Any]) -> dict[str, Any]:
    try:
        value = _entry(namespace, entry)(*unpack(call["args"]), **unpack(call["kwargs"]))
        return {"value": pack(value)}
    except NotPlain as error:
        return {"not_plain": str(error)}
    except BaseException as error:  # noqa: BLE001  # told to whoever called
        return {"raised": [type(error).__name__[:100], str(error)[:500]]}


def _entry(namespace: dict[str, Any], entry: str) -> Any:
    first, _, method = entry.partition(".")
    if first not in namespace:
        raise NameError(f"name {first!r} is not defined")
    found = namespace[first]
    return getattr(found() if isinstance(found, type) else found, method) if method else found


def _tests() -> int:
    """Run tests in Python against a `candidate` that lives in another jail."""
    given = _read()
    if given is None or not _save(given["source"]):
        return 1
    namespace = runpy.run_path(SOURCE, run_name="tests")
    check = namespace[given["entry"]]
    # Some tests name the candidate themselves.
    check.__globals__.setdefault(given["candidate"].partition(".")[0], _candidate)
    try:
        check(_candidate)
        _write({"passed": True})
    except BaseException as error:  # noqa: BLE001  # a test that raises has failed
        _write({"failed": f"{type(error).__name__}: {error}"[:500]})
    return 0


def _candidate(*args: Any, **kwargs: Any) -> Any:
    _write({"args": pack(list(args)), "kwargs": pack(kwargs)})
    answer = _read()
    if answer is None or "value" not in answer:
        raise _raised(answer or {})
    return unpack(answer["value"])


def _raised(answer: dict[str, Any]) -> BaseException:
    """The candidate's error, when it is one of Python's own."""
    name, text = answer.get("raised", ("RuntimeError", str(answer)[:200]))
    kind = getattr(__import__("builtins"), name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, AssertionError):
        return kind(text)
    return RuntimeError(f"{name}: {text}")


BODIES = {"program": _program, "calls": _calls, "tests": _tests}
