"""Reads a prompt's `CheckSpec`, and refuses one that cannot be used in one sentence."""

from __future__ import annotations

from typing import Any

from pipeline.errors import UserError
from services.verification import plain
from sluice.v1 import prompt_pb2


def settings(check: str, spec: prompt_pb2.CheckSpec, accepted: tuple[str, ...]) -> dict[str, Any]:
    """The object in `spec_json`, `{}` where there is none. Raises `UserError` for anything else and for unknown keys.

    >>> settings("length", prompt_pb2.CheckSpec(spec_json='{"low": 3}'), ("low", "high"))
    {'low': 3}
    """
    if not spec.spec_json:
        return {}
    try:
        found = plain.loads(spec.spec_json)
    except ValueError as error:
        raise UserError(f"{check}: spec is {spec.spec_json[:80]!r} ({error}); accepted: a JSON object") from error
    if not isinstance(found, dict):
        raise UserError(f"{check}: spec is {spec.spec_json[:80]!r}; accepted: a JSON object")
    for key in found:
        if key not in accepted:
            raise UserError.choice(f"{check}: a key of spec", key, accepted)
    return found


def needed(check: str, found: dict[str, Any], key: str, kind: type | tuple[type, ...], accepted: str) -> Any:
    """`found[key]`, which must be of that type. Raises `UserError`.

    >>> needed("ranking", {"relevance": {"a": 1}}, "relevance", dict, "an object")
    {'a': 1}
    """
    value = found.get(key)
    if not isinstance(value, kind):
        raise UserError(f"{check}: {key} is {value!r}; accepted: {accepted}")
    return value
