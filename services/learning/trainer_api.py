"""What the handler asks of a trainer: the whole method, behind six calls. It knows no log, no offset and no outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from services.learning.group import Group, Member
from sluice.v1 import training_pb2


class StepResult(Protocol):
    """What one optimiser step did. Every member it was given is in `uses` or in `dropped`, once."""

    @property
    def uses(self) -> Sequence[training_pb2.Use]:
        """Rollouts that it trained on, with `use` as the member said."""
        ...

    @property
    def dropped(self) -> Sequence[tuple[Member, str]]:
        """Rollouts that a selection left out, and its reason."""
        ...

    @property
    def metrics(self) -> Mapping[str, float]:
        """Loss parts, gradient norm and so on, by name."""
        ...

    @property
    def shifts(self) -> Sequence[training_pb2.PromptShift]:
        """Movement per prompt, where the recipe measures it."""
        ...

    @property
    def skipped(self) -> str:
        """Why nothing was updated ("nan_step"); empty when the step was made. The weights are then what they were."""
        ...


class Trainer(Protocol):
    """Model, optimiser and estimator of a recipe."""

    def refuses(self, group: Group) -> str:
        """Why a group is not worth a place in a batch ("degenerate_group"), asked once as it closes; "" keeps it."""
        ...

    def step(self, groups: Sequence[Group], version: int) -> StepResult:
        """One optimiser step on these groups, while `version` is the version in force."""
        ...

    def state(self) -> Mapping[str, Any]:
        """All that a checkpoint must hold: shard name -> tensors by name, or JSON (see `checkpoint.State`)."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        ...

    def weights(self) -> Iterable[tuple[str, Any]]:
        """(name, tensor) of the whole policy in its serving dtype; torch tensors or numpy arrays."""
        ...
