"""Entropy is steered to a target by what a hotter or colder copy of the policy thinks of right answers (DCPO).

    kappa_t = exp(logp_t at temperature T' - logp_t),    T' = hot where H <= target, else cold
    a = min(|target - H|, 0.1) / q,   alpha = a / (1 + a);    q: share of right answers, H: mean entropy of the step
    A'_t = (1 - alpha) A + alpha kappa_t on right answers,    (1 - alpha) A on the others

Source: DCPO (distribution-centric policy optimisation), released code on verl (hot 1.2, cold 0.8, target 0.5; 0.25 is
reported best). Not the DCPO of dynamic clipping. The released code takes H from the step before; here it is this
step's.
Odd cases: no right answer: A' = A (released code divides by 0). A kappa that is not finite is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import per_token, step_moments


@dataclass(frozen=True)
class DcpoDistribution:
    """
    Target .5, H .3, q .4: alpha .2; logp [-.7, -1.3], tempered [-.8, -1.1]: kappa [.904837, 1.221403];
    A 1.2 on a right answer: [1.140967, 1.204281]; A -.8 on a wrong one: -.64.
    """

    target: float = knob(0.5, "entropy that is steered to", unit="nats", ge=0)
    most: float = knob(0.1, "largest distance from the target that counts", unit="nats", ge=0)
    right: float = knob(0.05, "accuracy above which an answer is right", unit="accuracy", ge=0)

    __post_init__ = check

    modifies: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"entropy", "step_logp", "tempered_logp"})

    def __call__(self, batch: Batch, advantage: Tensor) -> Tensor:
        logp_NT, tempered_NT2 = batch.signals["step_logp"], batch.signals["tempered_logp"]
        entropy, _ = step_moments(batch, batch.signals["entropy"], batch.mask_NT, ddof=0)
        right_N = batch.accuracy_N > self.right
        alpha = self.alpha(entropy, step_moments(batch, right_N.to(advantage.dtype), None, ddof=0)[0])
        tempered_NT = torch.where(entropy <= self.target, tempered_NT2[..., 1], tempered_NT2[..., 0])
        kappa_NT = (tempered_NT - logp_NT).clamp(-20, 20).nan_to_num(0.0).exp().to(advantage.dtype)
        return (1 - alpha) * per_token(advantage, logp_NT) + alpha * kappa_NT * right_N[:, None]

    def alpha(self, entropy: Tensor, share: Tensor) -> Tensor:
        """Weight of kappa, at this mean entropy and this share of right answers; 0 where there are none."""
        pull = (self.target - entropy).abs().clamp(max=self.most) / share.clamp(min=1e-12)
        return torch.where(share > 0, pull / (1 + pull), torch.zeros_like(pull))
