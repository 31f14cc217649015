"""Log-probs under the policy as the step begins, for parts that need those of the whole step at once.

    step_t = sg(log pi_theta(y_t | context))

Source: M2PO and the batch-normalised forms of TIS need every ratio of the step before any gradient.
Odd case: where the step is one micro-batch on one rank, the pass of the gradient itself is taken instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal import Score


@dataclass(frozen=True)
class StepLogp:
    """
    >>> StepLogp()
    StepLogp()
    """

    def __call__(self, batch: Batch, score: Score) -> Tensor:
        return score("policy").logp_NT
