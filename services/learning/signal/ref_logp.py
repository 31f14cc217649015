"""Log-probs under the reference policy: a frozen copy of the model that training began from.

    ref_t = log pi_ref(y_t | context)

Source: the KL term of GRPO, arXiv:2402.03300.
Odd case: `every` > 0 copies the policy onto the reference after that many steps (a slow reference).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.signal import Score


@dataclass(frozen=True)
class RefLogp:
    """
    >>> RefLogp().every
    0
    """

    every: int = knob(0, "steps between two copies of the policy; 0 never copies", unit="steps", ge=0)

    __post_init__ = check

    copy: ClassVar[str] = "reference"

    @property
    def still(self) -> bool:
        """Whether the copy never moves."""
        return not self.every

    def follow(self, reference: nn.Module, model: nn.Module, steps: int) -> None:
        """Copy the policy where its time has come."""
        if self.every and steps % self.every == 0:
            reference.load_state_dict(model.state_dict())

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        return score("reference").logp_NT
