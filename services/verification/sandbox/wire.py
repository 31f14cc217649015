"""Plain data over a wall: frames on a socket, and values whose exact types survive the way.

JSON has no tuples, sets, bytes, complex numbers or keys that are no text; these travel as an object with one marked
key. Anything else, a subclass of `int` also, is refused by name: what arrives was built here, from text. Used on both
sides of the wall, so it needs nothing but the standard library, and not much of it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

MAX_FRAME = 8 * 2**20
MAX_DEPTH = 60
HEAD = struct.Struct(">I")


class NotPlain(ValueError):
    """A value that may not cross; its message is the name of its type."""


def frame(message: Any) -> bytes:
    """A JSON value as a frame. Raises `NotPlain` when it is too big."""
    try:
        data = json.dumps(message).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise NotPlain(str(error)) from None
    if len(data) > MAX_FRAME:
        raise NotPlain(f"{len(data)} bytes")
    return HEAD.pack(len(data)) + data


def unframe(buffer: bytearray) -> Any:
    """Take the first whole frame off a buffer; None when there is none yet. Raises `ValueError` for what is no frame.

    >>> unframe(bytearray(frame({"a": 1}) + b"rest"))
    {'a': 1}
    """
    if len(buffer) < HEAD.size:
        return None
    (size,) = HEAD.unpack_from(buffer)
    if size > MAX_FRAME:
        raise ValueError(f"a frame of {size} bytes")
    if len(buffer) < HEAD.size + size:
        return None
    data = bytes(buffer[HEAD.size : HEAD.size + size])
    del buffer[: HEAD.size + size]
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("a frame nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("a frame that is no object")
    return found


def pack(value: Any, depth: int = 0) -> Any:
    """A plain value as JSON. Raises `NotPlain`.

    >>> pack((1, {"a": {2}})), pack(True), unpack(pack({1: (2.5, None, b"x")}))
    ({'t': [1, {'d': [['a', {'s': [2]}]]}]}, True, {1: (2.5, None, b'x')})
    """
    if depth > MAX_DEPTH:
        raise NotPlain("nested too deeply")
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -(2**63) < value < 2**63 else {"i": hex(value)}
    if kind is float:
        return value if value - value == 0 else {"f": repr(value)}
    if kind is list:
        return [pack(one, depth + 1) for one in value]
    if kind is dict:
        return {"d": [[pack(key, depth + 1), pack(one, depth + 1)] for key, one in value.items()]}
    if kind in _MANY:
        return {_MANY[kind]: [pack(one, depth + 1) for one in value]}
    if kind is complex:
        return {"c": [pack(value.real), pack(value.imag)]}
    if kind is bytes:
        return {"b": value.hex()}
    raise NotPlain(f"{kind.__module__}.{kind.__qualname__}"[:200])


def unpack(packed: Any, depth: int = 0) -> Any:
    """The inverse of `pack`. Raises `ValueError` for what `pack` never makes."""
    if depth > MAX_DEPTH + 1:
        raise ValueError("nested too deeply")
    if isinstance(packed, list):
        return [unpack(one, depth + 1) for one in packed]
    if not isinstance(packed, dict):
        return packed
    if len(packed) != 1:
        raise ValueError("no packed value")
    (mark, inner), *_ = packed.items()
    try:
        return _unmark(mark, inner, depth)
    except (TypeError, AttributeError, KeyError, OverflowError) as error:
        raise ValueError(f"no packed value: {error}") from None


_MANY = {tuple: "t", set: "s", frozenset: "z"}
_OF_MANY = {"t": tuple, "s": set, "z": frozenset}


def _unmark(mark: str, inner: Any, depth: int) -> Any:
    if mark == "i":
        return int(inner, 16)
    if mark == "f":
        return {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}[inner]
    if mark == "d":
        return {unpack(key, depth + 1): unpack(one, depth + 1) for key, one in inner}
    if mark == "c":
        return complex(unpack(inner[0]), unpack(inner[1]))
    if mark == "b":
        return bytes.fromhex(inner)
    return _OF_MANY[mark](unpack(one, depth + 1) for one in inner)
