"""What acts after a step and keeps state between steps: a part's `open()` gives a running `Controller`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from services.learning.batch import Batch
from services.learning.likelihood import Forward
from sluice.v1 import training_pb2

Score = Callable[[Batch], Forward]
"""Runs the updated policy over a batch without a gradient."""


class Controller(Protocol):
    """State that lives between steps, on each rank for the rollouts it trained.

    A controller may have `before_step() -> dict[str, float]`: signals that every rollout of the step carries, [N], from
    the reward on.
    """

    def after_step(self, batch: Batch, score: Score) -> tuple[list[training_pb2.PromptShift], dict[str, float]]:
        """Look at what was just trained, under the updated policy: this rank's shifts, the step's metrics."""
        ...

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """One-dimensional tensors and JSON that `load` takes back: this rank's."""
        ...

    def load(self, shards: Sequence[tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        """Go on from the states of all ranks that wrote the checkpoint, which may be more or fewer than now."""
        ...
