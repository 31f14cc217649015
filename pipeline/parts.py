"""Methods are parts: the file name is the registry, and one frozen dataclass is the config.

    load("learning.advantage", "group_norm", ddof=1)      imports services/learning/advantage/group_norm.py
    load("verification.check", "my_package:MyCheck")      a class of an installed package
    load("verification.check", "./my_check.py")           the one frozen dataclass of a file
    load("verification.check", "my_check")                what an installed package offers under that entry point

A package offers a part under the entry-point group "sluice.<room>", such as "sluice.verification.check".

A room is a service's, or the pipeline's own when its name begins so: "pipeline.data.source".

A part's file has one public frozen dataclass; its fields are the knobs, its docstring is the documentation.
A name, knob or file that does not exist is refused with the ones that do.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import UserError


def names(room: str) -> list[str]:
    """The parts of a room, in order.

    >>> "exact" in names("verification.check")
    True
    """
    folder = Path(importlib.import_module(_package(room)).__file__ or "").parent
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def offered(room: str) -> dict[str, str]:
    """The parts of a room that installed packages offer: name to `package.module:Class`. A name that ships wins."""
    return {point.name: point.value for point in entry_points(group=f"sluice.{room}")}


def load(room: str, name: str, /, **knobs: Any) -> Any:
    """Build part `name` of `room` (such as "learning.advantage") with these knobs."""
    part = find(room, name)
    accepted = [field.name for field in dataclasses.fields(part) if field.init]
    for knob in knobs:
        if knob not in accepted:
            raise UserError.choice(f"a knob of {room} {name!r}", knob, accepted or ["(it has none)"])
    missing = [f.name for f in dataclasses.fields(part) if f.init and _required(f) and f.name not in knobs]
    if missing:
        raise UserError(f"{room} {name!r} needs the knob {missing[0]!r}; accepted: {', '.join(accepted)}")
    try:
        return part(**knobs)
    except (ValueError, TypeError) as error:
        raise UserError(f"{room} {name!r}: {error}") from error


def find(room: str, name: str) -> type:
    """The dataclass behind a name."""
    if name.endswith(".py"):
        return _only_dataclass(_from_file(name), name)
    if ":" in name:
        return _from_package(name)
    if name not in names(room):
        others = offered(room)
        if name not in others:
            raise UserError.choice(f"the {room} part", name, [*names(room), *others])
        return _from_package(others[name])
    return _only_dataclass(importlib.import_module(f"{_package(room)}.{name}"), name)


def _package(room: str) -> str:
    return room if room.startswith("pipeline.") else f"services.{room}"


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _only_dataclass(module: ModuleType, name: str) -> type:
    found = [
        value
        for key, value in vars(module).items()
        if inspect.isclass(value)
        and dataclasses.is_dataclass(value)
        and value.__module__ == module.__name__
        and not key.startswith("_")
    ]
    if len(found) != 1:
        raise UserError(f"part {name!r} holds {len(found)} public dataclasses; accepted: exactly one")
    return found[0]


def _from_file(name: str) -> ModuleType:
    path = Path(name)
    if not path.is_file():
        raise UserError(f"part file {name!r} does not exist; accepted: a Python file, package:class, or a part's name")
    spec = importlib.util.spec_from_file_location(f"sluice_part_{path.stem}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_package(name: str) -> type:
    package, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(package), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"part {name!r} cannot be imported ({error}); accepted: package.module:Class") from error
    if not dataclasses.is_dataclass(found):
        raise UserError(f"part {name!r} is no dataclass; accepted: a frozen dataclass")
    return found  # type: ignore[return-value]
