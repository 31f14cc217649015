"""What `--set` says: a field of a run file, or a knob of a check, and its value as YAML."""

from __future__ import annotations

from typing import Any

import yaml

from pipeline import yaml12
from pipeline.errors import UserError

FIELD, KNOB = "field.field=value", "KNOB=VALUE"


def read(override: str, accepted: str = FIELD) -> tuple[str, Any]:
    """The name and the value. Raises `UserError` for what has none, or is no YAML.

    >>> read("learning.steps=3")
    ('learning.steps', 3)
    >>> read("learning.lr=1e-06")
    ('learning.lr', 1e-06)
    """
    name, equals, value = override.partition("=")
    if not equals or not name:
        raise UserError(f"--set {override!r} has no value; accepted: {accepted}")
    try:
        return name, yaml12.read(value)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override!r} is no YAML; accepted: {accepted}") from error


def apply(tree: dict[str, Any], override: str) -> dict[str, Any]:
    """A copy of `tree` with that field set.

    >>> apply({"learning": {"lr": 1.0}}, "learning.steps=3")
    {'learning': {'lr': 1.0, 'steps': 3}}
    """
    name, value = read(override)
    tree = dict(tree)
    here = tree
    *parents, last = name.split(".")
    for parent in parents:
        inner = here.get(parent)
        here[parent] = dict(inner) if isinstance(inner, dict) else {}
        here = here[parent]
    here[last] = value
    return tree
