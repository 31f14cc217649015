"""Route each rollout to the loss that knows most of it: wrong with a teacher to SDPO, all others to GRPO (SRPO).

    z_S = wrong and taught, z_G = 1 - z_S
    w_t = exp(-beta H_t) / (mean of exp(-beta H) over the SDPO tokens of the whole step),   H the teacher's entropy
    loss = (sum z_G l_GRPO + sum z_S w l_SDPO) / (trained tokens of the whole step)

with l_GRPO = -coef logp of the recipe's advantage and weights, and l_SDPO the divergence of `objective/sdpo.py`.

Source: "Unifying Group-Relative and Self-Distillation Policy Optimization via Sample Routing" (SRPO), section 3.
Odd cases: without a rollout for SDPO this is GRPO with the token mean. Another SRPO (self-improving robust preference
optimisation) has the same letters. Right is an accuracy of at least `success`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.objective import told, trained, whole_step
from services.learning.objective.sdpo import Sdpo as Distil


@dataclass(frozen=True)
class Srpo:
    """H [.1, 1.2, .5]: w [1.497610, 0.498511, 1.003878]; l_SDPO [.2, .4, .1], l_GRPO [-.5, -.5]: loss -0.080137."""

    beta: float = knob(1.0, "how fast a teacher's entropy lowers its say", unit="per nat", ge=0)
    success: float = knob(0.5, "least accuracy of a right rollout", unit="accuracy", ge=0, le=1)
    alpha: float = knob(0.0, "divergence of the SDPO branch, as in SDPO", ge=0, le=1)
    clip: float | None = knob(2.0, "largest ratio of the SDPO branch, as in SDPO", unit="ratio", gt=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "picked"})

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """Number of SDPO tokens, and their mean weight before it is normalised."""
        routed_NT = self.routed(batch)
        raw_NT = torch.where(routed_NT, self._raw(batch), torch.zeros_like(batch.behaviour_NT))
        count_N = whole_step(batch, routed_NT.sum().to(raw_NT.dtype))
        return {"srpo_mean": whole_step(batch, raw_NT.sum()) / count_N.clamp(min=1)}

    def __call__(self, batch: Batch, forward: Forward, coef_NT: Tensor) -> Tensor:
        logp_NT, _ = trained(batch, forward)
        distilled_NT = Distil(alpha=self.alpha, clip=self.clip).per_token(batch, forward)
        loss_NT = torch.where(self.routed(batch), self.weights(batch) * distilled_NT, -coef_NT * logp_NT)
        return loss_NT.sum() / max(batch.denominators.tokens, 1.0)

    def routed(self, batch: Batch) -> Tensor:
        """True on the trained tokens that go to SDPO, [N, T]."""
        sent_N = (batch.accuracy_N < self.success) & (batch.signals["taught"] > 0)
        return batch.mask_NT & sent_N[:, None]

    def weights(self, batch: Batch) -> Tensor:
        """w of each token, [N, T]."""
        mean = told(batch, "srpo_mean")
        return self._raw(batch) / torch.where(mean > 0, mean, torch.ones_like(mean))

    def _raw(self, batch: Batch) -> Tensor:
        return (-self.beta * batch.signals["teacher_entropy"]).exp()
