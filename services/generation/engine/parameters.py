"""A policy's tensors inside a loaded model: which names it needs, and copying new values in place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import UserError

SHOWN = 5
WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Types that values of so many bytes are moved as: torch scatters bfloat16 and float16 up to 50 times slower."""


class Parameters:
    """A model's tensors, each under every name it goes by (tied weights have several). Buffers need not be sent."""

    def __init__(self, model: nn.Module) -> None:
        self._by_name: dict[str, Tensor] = model.state_dict(keep_vars=True)
        self._aliases: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._aliases.setdefault(id(parameter), []).append(name)

    def plan(self, tensors: Mapping[str, Tensor], changed: Mapping[str, Tensor | None] | None = None) -> list[Patch]:
        """What to write for each tensor. Raises `UserError` that lists what differs.

        `changed`: flat positions by name, see `engine.api.Engine.apply`; without it, whole tensors.
        """
        unknown = [name for name in tensors if name not in self._by_name]
        missing = [names[0] for names in self._aliases.values() if not any(name in tensors for name in names)]
        shapes = [
            f"{name} is {tuple(value.shape)}, the model's is {tuple(self._by_name[name].shape)}"
            for name, value in tensors.items()
            if name in self._by_name and value.shape != self._by_name[name].shape
        ]
        if unknown or missing or shapes:
            raise UserError("weights are of another model: " + "; ".join(_differences(unknown, missing, shapes)))
        return [
            self._patch(self._by_name[name].data, value, None if changed is None else changed[name])
            for name, value in tensors.items()
            if changed is None or name in changed
        ]

    def _patch(self, target: Tensor, value: Tensor, position_K: Tensor | None) -> Patch:
        if position_K is None or not target.is_contiguous():
            return Patch(target, value)
        value_K = _words(value.reshape(-1))[position_K].view(value.dtype)
        moved_K = value_K.to(target.device, target.dtype)
        return Patch(_words(target.view(-1)), _words(moved_K), position_K.to(target.device))


@dataclass(frozen=True)
class Patch:
    """New values of a tensor of the model: all of it, or at flat positions."""

    target: Tensor
    value: Tensor
    position_K: Tensor | None = None

    def write(self) -> None:
        """Overwrite in place; types are cast."""
        if self.position_K is None:
            self.target.copy_(self.value, non_blocking=True)
        else:
            self.target.scatter_(0, self.position_K, self.value)


def copy(plan: list[Patch]) -> None:
    """Overwrite in place."""
    with torch.no_grad():
        for patch in plan:
            patch.write()
        if plan and plan[0].target.is_cuda:
            torch.cuda.synchronize(plan[0].target.device)


def _words(values: Tensor) -> Tensor:
    """The same memory as integers of its values' size."""
    return values.view(WORDS[values.element_size()])


def _differences(unknown: list[str], missing: list[str], shapes: list[str]) -> list[str]:
    found = []
    for title, names in (("not in the model", unknown), ("missing", missing), ("of another shape", shapes)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            found.append(f"{title}: {', '.join(names[:SHOWN])}{more}")
    return found
