"""A policy's tensors inside a loaded model: which names it needs, and copying new values in place."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.errors import UserError

SHOWN = 5


class Parameters:
    """A model's tensors, each under every name it goes by (tied weights have several). Buffers need not be sent."""

    def __init__(self, model: nn.Module) -> None:
        self._by_name: dict[str, Tensor] = model.state_dict(keep_vars=True)
        self._aliases: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._aliases.setdefault(id(parameter), []).append(name)

    def plan(self, tensors: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(tensor of the model, new values) for each. Raises `UserError` that lists what differs."""
        unknown = [name for name in tensors if name not in self._by_name]
        missing = [names[0] for names in self._aliases.values() if not any(name in tensors for name in names)]
        shapes = [
            f"{name} is {tuple(value.shape)}, the model's is {tuple(self._by_name[name].shape)}"
            for name, value in tensors.items()
            if name in self._by_name and value.shape != self._by_name[name].shape
        ]
        if unknown or missing or shapes:
            raise UserError("weights are of another model: " + "; ".join(_differences(unknown, missing, shapes)))
        return [(self._by_name[name].data, value) for name, value in tensors.items()]


def copy(plan: list[tuple[Tensor, Tensor]]) -> None:
    """Overwrite in place; types are cast."""
    with torch.no_grad():
        for target, value in plan:
            target.copy_(value, non_blocking=True)
        if plan and plan[0][0].is_cuda:
            torch.cuda.synchronize(plan[0][0].device)


def _differences(unknown: list[str], missing: list[str], shapes: list[str]) -> list[str]:
    found = []
    for title, names in (("not in the model", unknown), ("missing", missing), ("of another shape", shapes)):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            found.append(f"{title}: {', '.join(names[:SHOWN])}{more}")
    return found
