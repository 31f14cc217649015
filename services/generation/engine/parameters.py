"""A policy's tensors inside a loaded model: which names it needs, and copying new values in place.

Where the model has a LoRA adapter the policy is the adapter: its tensors, by the names under which they travel.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline import lora
from pipeline.errors import UserError

SHOWN = 5
WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Types that values of so many bytes are moved as: torch scatters bfloat16 and float16 up to 50 times slower."""


class Parameters:
    """A policy's tensors, each under every name it goes by (tied weights have several). Buffers need not be sent."""

    def __init__(self, model: nn.Module) -> None:
        named = list(model.named_parameters(remove_duplicate=False))
        own = [(lora.travelling(name), parameter) for name, parameter in named if lora.is_part(name)]
        self._by_name: dict[str, Tensor] = dict(own) or model.state_dict(keep_vars=True)
        self._aliases: dict[int, list[str]] = {}
        for name, parameter in own or named:
            self._aliases.setdefault(id(parameter), []).append(name)

    def empty(self) -> dict[str, Tensor]:
        """Zeros for every tensor, on the CPU, each under one name: of an adapter the one that changes nothing."""
        names = [names[0] for names in self._aliases.values()]
        return {name: torch.zeros(self._by_name[name].shape, dtype=self._by_name[name].dtype) for name in names}

    def plan(
        self,
        tensors: Mapping[str, Tensor],
        changed: Mapping[str, Tensor | None] | None = None,
        given: MutableMapping[str, Tensor] | None = None,
    ) -> list[Patch | Exchange]:
        """What to write for each tensor. Raises `UserError` that lists what differs.

        `changed`: flat positions by name, and `given`: see `engine.api.Engine.apply`; without them, whole tensors are
        copied.
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
            self._exchange(name, value, given)
            if given is not None and _alike(self._by_name[name], value)
            else self._patch(self._by_name[name].data, value, None if changed is None else changed[name])
            for name, value in tensors.items()
            if changed is None or name in changed
        ]

    def _exchange(self, name: str, value: Tensor, given: MutableMapping[str, Tensor]) -> Exchange:
        given[name] = self._by_name[name].detach()
        return Exchange(self._by_name[name], value)

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


@dataclass(frozen=True)
class Exchange:
    """A tensor of the model gets other memory, in which the new values lie already: nothing is copied."""

    target: Tensor
    value: Tensor

    def write(self) -> None:
        """From now on this memory is the tensor's; whoever uses the tensor sees it, for it stays the same object."""
        self.target.data = self.value


def write(plan: Sequence[Patch | Exchange]) -> None:
    """All of it: what generation stands still for."""
    with torch.no_grad():
        for patch in plan:
            patch.write()
        if plan and plan[0].target.is_cuda:
            torch.cuda.synchronize(plan[0].target.device)


def _alike(target: Tensor, value: Tensor) -> bool:
    """Can this memory become the tensor's?"""
    on_cpu = target.device.type == value.device.type == "cpu"
    return on_cpu and target.dtype == value.dtype and target.is_contiguous() and value.is_contiguous()


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
