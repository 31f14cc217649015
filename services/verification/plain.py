"""Plain data: what may cross a wall, and when two pieces of it are the same.

Only values whose type is exactly one of Python's own plain types cross; `type(x) is int`, so True is not 1, and an
object that says it equals everything never arrives. Comparison walks both sides itself and calls no method of theirs.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 60
JSON_TYPES = (str, int, float, bool, type(None), list, dict)


def same(said: Any, expected: Any, tolerance: float = 0.0, tuples_are_lists: bool = False) -> bool:
    """Whether two plain values are equal, with equal types all the way down.

    `tolerance`: how far two floats may lie apart, relative to the larger and absolute below 1; NaN equals NaN.
    `tuples_are_lists`: for an expected value that was written in JSON, which has no tuples.

    >>> same(1, True), same(1, 1.0), same([1, (2,)], [1, (2,)]), same((1,), [1], tuples_are_lists=True)
    (False, False, True, True)
    >>> same(0.1 + 0.2, 0.3), same(0.1 + 0.2, 0.3, tolerance=1e-9)
    (False, True)
    """
    return _same(said, expected, tolerance, tuples_are_lists, 0)


def loads(text: str | bytes) -> Any:
    """JSON of bounded depth. Raises `ValueError` for everything that is not.

    >>> loads('{"a": [1, 2.0]}')
    {'a': [1, 2.0]}
    """
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _deeper(found, MAX_DEPTH):
        raise ValueError("nested too deeply")
    return found


def _same(said: Any, expected: Any, tolerance: float, loose: bool, depth: int) -> bool:
    if depth > MAX_DEPTH:
        return False
    if loose and type(said) is tuple:
        said = list(said)
    if loose and type(expected) is tuple:
        expected = list(expected)
    if type(said) is not type(expected):
        return False
    if type(said) is float:
        return _near(said, expected, tolerance)
    if type(said) in (list, tuple):
        return len(said) == len(expected) and all(
            _same(one, other, tolerance, loose, depth + 1) for one, other in zip(said, expected, strict=True)
        )
    if type(said) is dict:
        return _same_keys(said, expected) and all(
            _same(said[key], expected[key], tolerance, loose, depth + 1) for key in expected
        )
    if type(said) in (set, frozenset):
        return _same_keys(said, expected)
    return bool(said == expected)


def _same_keys(said: Any, expected: Any) -> bool:
    return {(type(key), key) for key in said} == {(type(key), key) for key in expected}


def _near(said: float, expected: float, tolerance: float) -> bool:
    if math.isnan(said) or math.isnan(expected):
        return math.isnan(said) and math.isnan(expected)
    return said == expected or math.isclose(said, expected, rel_tol=tolerance, abs_tol=tolerance)


def _deeper(value: Any, left: int) -> bool:
    if left < 0:
        return True
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_deeper(child, left - 1) for child in children)
