"""Prompt sources by name: `pipeline/data/source/` is a room like those of the services.

load_source("reasoning_gym", dataset="spell_backward", size=500)      a source that ships
load_source("my_package:MySource", knob=1)                            a class of an installed package
load_source("./my_source.py")                                         the one frozen dataclass of a file
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from pipeline import parts
from pipeline.errors import UserError
from sluice.v1 import prompt_pb2

ROOM = "pipeline.data.source"


class Source(Protocol):
    """Somewhere that prompts come from."""

    def prompts(self) -> Iterator[prompt_pb2.Prompt]:
        """Every prompt, in an order that is the same each time. Raises `UserError` for what cannot be read."""
        ...


def sources() -> list[str]:
    """Names of the sources that ship.

    >>> sources()
    ['entry_point', 'huggingface', 'jsonl', 'reasoning_gym']
    """
    return parts.names(ROOM)


def load_source(kind: str, **knobs: Any) -> Source:
    """Build source `kind` with these knobs. Raises `UserError` for a name or a knob that does not exist."""
    return parts.load(ROOM, kind, **knobs)


def load_all(told: Iterable[Mapping[str, Any]]) -> list[Source]:
    """The sources that a run file names, kind and knobs each. Nothing is read yet but what their knobs say."""
    return [_of(dict(one)) for one in told]


def _of(knobs: dict[str, Any]) -> Source:
    kind = knobs.pop("kind", None)
    accepted = [*sources(), *parts.offered(ROOM)]
    # A package's class or a file is looked for where it is built.
    if not isinstance(kind, str) or not (kind in accepted or ":" in kind or kind.endswith(".py")):
        raise UserError.choice("data.sources: kind", kind, accepted)
    return load_source(kind, **knobs)
