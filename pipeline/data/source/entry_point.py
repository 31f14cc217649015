"""Problems that a function of the user's makes: `package.module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.prompt import ID_DIGITS
from pipeline.digest import prompt_digest
from pipeline.errors import UserError
from sluice.v1 import prompt_pb2


@dataclass(frozen=True)
class EntryPoint:
    """
    `target`: `package.module:function`; the function returns an iterable of `Prompt` messages. `arguments`: its keyword
    arguments. A prompt without an id or digest is given them.
    """

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._function()

    def prompts(self) -> Iterator[prompt_pb2.Prompt]:
        """What the function yields, in its order."""
        for number, made in enumerate(self._function()(**self.arguments)):
            if not isinstance(made, prompt_pb2.Prompt) or not made.messages:
                raise UserError(f"{self.target!r} item {number} is {repr(made)[:80]}; accepted: a Prompt with messages")
            prompt = prompt_pb2.Prompt()
            prompt.CopyFrom(made)
            prompt.digest = prompt_digest(made)
            prompt.prompt_id = made.prompt_id or prompt.digest.hex()[:ID_DIGITS]
            yield prompt

    def _function(self) -> Callable[..., Any]:
        module, _, name = self.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"entry_point: target is {self.target!r} ({error}); accepted: package.module:function"
            ) from error
        if not callable(found):
            raise UserError(f"entry_point: target {self.target!r} cannot be called; accepted: a function")
        return found
