"""Distil the policy that has seen a right answer into the one that has not, token by token (SDPO).

    S = policy, T = teacher (the signal), over the teacher's K likeliest tokens and one bucket for the rest
    alpha 0: KL(T || S).   alpha 1: KL(S || T).
    else (1 - alpha) KL(S || M) + alpha KL(T || M),  M = (1 - alpha) S + alpha T
    form sampled (alpha must be 1): sg(log S - log T) log S on the sampled token
    loss = sum_t min(exp(logp_t - prox_t), clip) D_t / (trained tokens of the taught rollouts of the whole step)

Source: SDPO (lasgroup/SDPO, `core_algos.py`). Its config class says alpha 0 while its sampled form asserts alpha 1.
Odd cases: a rollout without a teacher is left out, and out of the denominator; a step without any has loss 0.
`rest: renormalise` divides by the sum over K in place of the bucket. The ratio is detached. The advantage is not used.
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
from services.learning.weight import log_ratio


@dataclass(frozen=True)
class Sdpo:
    """T [.7, .2, .1], S [.4, .4, .2]: KL(T||S) 0.183787, KL(S||T) 0.192042, alpha .5 0.046201; sampled 0: 0.512771."""

    alpha: float = knob(0.0, "0: KL(T || S); 1: KL(S || T); between: Jensen-Shannon", ge=0, le=1)
    form: str = knob("logits", "over the likeliest tokens, or on the sampled one", choices=("logits", "sampled"))
    rest: str = knob("bucket", "what becomes of the tokens beyond K", choices=("bucket", "renormalise"))
    clip: float | None = knob(2.0, "largest ratio to the proximal policy; null takes no ratio", unit="ratio", gt=0)

    needs: ClassVar[frozenset[str]] = frozenset({"teacher", "picked"})
    conflicts: ClassVar[dict[str, str]] = {
        "advantage": "self-distillation follows the teacher and never reads the advantage",
        "modifiers": "self-distillation never reads the advantage that a modifier changes",
        "weight": "self-distillation has its own clipped ratio and never reads a weight",
    }

    def __post_init__(self) -> None:
        check(self)
        if self.form == "sampled" and self.alpha != 1:
            raise ValueError(f"knob alpha is {self.alpha!r}; accepted with form 'sampled': 1")

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """Trained tokens that have a teacher, over the whole step."""
        return {"taught_tokens": whole_step(batch, (batch.mask_NT * batch.signals["taught"][:, None]).sum())}

    def __call__(self, batch: Batch, forward: Forward, coef_NT: Tensor) -> Tensor:
        loss_NT = self.per_token(batch, forward) * batch.signals["taught"][:, None]
        return loss_NT.sum() / told(batch, "taught_tokens", 1.0)

    def per_token(self, batch: Batch, forward: Forward) -> Tensor:
        """Divergence of each trained token times its ratio, [N, T] with its graph; 0 where it is not finite."""
        logp_NT, mask_NT = trained(batch, forward, batch.signals["teacher_logp"])
        if self.form == "sampled":
            teacher_NT = torch.where(mask_NT, batch.signals["teacher_logp"], torch.zeros_like(logp_NT))
            found_NT = (logp_NT - teacher_NT).detach() * logp_NT
        else:
            zero_NTK = torch.zeros_like(forward.signals["picked"])
            own_NTK = torch.where(mask_NT[..., None], forward.signals["picked"], zero_NTK)
            top_NTK = torch.where(mask_NT[..., None], batch.signals["teacher_top"].to(zero_NTK.dtype), zero_NTK)
            found_NT = self.divergence(top_NTK, own_NTK)
        if self.clip is not None:
            log_NT, _ = log_ratio(logp_NT.detach(), torch.where(mask_NT, batch.prox_NT, torch.zeros_like(logp_NT)))
            found_NT = found_NT * log_NT.exp().clamp(max=self.clip)
        return torch.where(mask_NT, found_NT, torch.zeros_like(found_NT))

    def divergence(self, teacher: Tensor, student: Tensor) -> Tensor:
        """The divergence of log-probs [..., K], [...]."""
        teacher, student = self._whole(teacher), self._whole(student)
        if self.alpha == 0:
            return _kl(teacher, student)
        if self.alpha == 1:
            return _kl(student, teacher)
        middle = ((1 - self.alpha) * student.exp() + self.alpha * teacher.exp()).log()
        return (1 - self.alpha) * _kl(student, middle) + self.alpha * _kl(teacher, middle)

    def _whole(self, logp: Tensor) -> Tensor:
        """Log-probs that sum to 1: with a bucket for the rest, or renormalised."""
        total = logp.logsumexp(-1, keepdim=True)
        if self.rest == "renormalise":
            return logp - total
        return torch.cat([logp, torch.log(-torch.expm1(total.clamp(max=-1e-7)))], -1)


def _kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.exp() * (p - q)).sum(-1)
