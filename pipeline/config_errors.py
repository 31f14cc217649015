"""What is wrong with a run file, in one sentence."""

from __future__ import annotations

import re
from types import UnionType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

SAID = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "list_type": "a list",
    "dict_type": "a mapping",
    "too_short": "at least one",
}
"""Pydantic's kinds of error that say what they want in Python's words, in a run file's."""
SHOWN = 6
"""Fields of a section that are named."""


def sentence(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """The first thing that is wrong: the field, its value and what is accepted. `where`: what was read."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where}: {name!r} is no field; accepted: {', '.join(_siblings(first['loc'], model))}"
    if _is_union(_field(first["loc"][:-1], model)):
        name = name.rpartition(".")[0]  # pydantic names which of several types it tried
        return f"{where}: {name} is {first['input']!r}; accepted: {' or '.join(map(_accepted, error.errors()))}"
    return f"{where}: {name} is {first['input']!r}; accepted: {_accepted(first, model)}"


def _siblings(loc: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    section = _section(loc[:-1], model)
    return sorted(section.model_fields) if section else []


def _section(loc: tuple[Any, ...], model: type[BaseModel]) -> Any:
    """The section that stands at `loc`; None where there is none."""
    section: Any = model
    for part in loc:
        field = getattr(section, "model_fields", {}).get(part)
        section = field and next((a for a in _types(field) if _is_section(a)), None)
    return section


def _field(loc: tuple[Any, ...], model: type[BaseModel]) -> Any:
    """The field that stands at `loc`; None where there is none."""
    return getattr(_section(loc[:-1], model), "model_fields", {}).get(loc[-1]) if loc else None


def _types(field: Any) -> tuple[Any, ...]:
    return (field.annotation, *getattr(field.annotation, "__args__", ()))


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_union(field: Any) -> bool:
    several = [one for one in get_args(field.annotation) if one is not type(None)] if field else []
    return len(several) > 1 and isinstance(field.annotation, UnionType)


def _accepted(error: Any, model: type[BaseModel] | None = None) -> str:
    kind, loc = error["type"], error["loc"]
    if kind == "model_type" and model and (section := _section(loc, model)):
        names = list(section.model_fields)
        return f"a mapping with {', '.join(names[:SHOWN])}" + (", ..." if len(names) > SHOWN else "")
    if kind == "dict_type" and model:
        of_a_list = isinstance(loc[-1], int)
        return SAID[kind] + _example(_field(loc[:-1] if of_a_list else loc, model), error["input"])
    if kind == "string_pattern_mismatch":
        return f"a text that matches {error['ctx']['pattern']}"
    message = SAID.get(kind) or error["msg"].removeprefix("Input should be ")
    return message[0].lower() + message[1:]


def _example(field: Any, given: Any) -> str:
    """A mapping as the field's own words show it, with the name that was given where the mapping names a part."""
    said = getattr(field, "description", None) or ""
    shown = re.search(r"\{.*\}", said)
    if "Part of" in said and isinstance(given, str):
        return f" such as {{name: {given}}}"
    return f" such as {shown[0]}" if shown else ""
