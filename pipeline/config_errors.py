"""What is wrong with a run file, in one sentence."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError


def sentence(error: ValidationError, where: str, model: type[BaseModel]) -> str:
    """The first thing that is wrong: the field, its value and what is accepted. `where`: what was read."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where}: {name!r} is no field; accepted: {', '.join(_siblings(first['loc'], model))}"
    return f"{where}: {name} is {first['input']!r}; accepted: {_accepted(first)}"


def _siblings(loc: tuple[Any, ...], model: type[BaseModel]) -> list[str]:
    section: Any = model
    for part in loc[:-1]:
        field = getattr(section, "model_fields", {}).get(part)
        section = next(
            (a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_section(a)), None
        )
    return sorted(section.model_fields) if section else []


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _accepted(error: Any) -> str:
    message = error["msg"].removeprefix("Input should be ")
    return message[0].lower() + message[1:]
