"""A pull towards the reference policy: the KL divergence, estimated on the sampled tokens.

    d = ref - logp;   k1 = -d,   k2 = d^2 / 2,   k3 = e^d - 1 - d;   loss += coef * sum_t w_t k_t / (trained tokens)

with w = 1, or the detached ratio exp(logp - behaviour) where `corrected` (unbiased for stale rollouts, DeepSeek-V3.2),
times 1 - preference (r_i - mean r of the group): right rollouts are held back less (AP-GRPO).

Source: estimators by Schulman (2020); GRPO takes k3, arXiv:2402.03300; AP-GRPO's weight, arXiv:2602.23615, eq. 4 to 6.
Odd cases: k1 has the right value and, as a loss, a gradient of mean zero; k2's gradient is the reverse KL's. d is
clamped to 20 nats before exp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.likelihood import Forward
from services.learning.reduce import group_mean
from services.learning.regularizer import safe, token_mean, usable
from services.learning.weight import log_ratio


@dataclass(frozen=True)
class Kl:
    """
    >>> import torch
    >>> [round(float(Kl(estimator=e).per_token(torch.tensor(-0.1))), 7) for e in ("k1", "k2", "k3")]  # d = -0.1
    [0.1, 0.005, 0.0048374]
    """

    coef: float = knob(0.001, "strength (DeepSeekMath 0.04)", unit="per nat", ge=0)
    estimator: str = knob("k3", "which estimate", choices=("k1", "k2", "k3"))
    corrected: bool = knob(False, "weigh each token by the ratio to the policy that sampled it")
    preference: float = knob(0.0, "how much less a rollout above its group's mean pays (AP-GRPO 0.6)", ge=0, le=1)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """What each rollout's terms are multiplied with, [N]."""
        return {"kl_weight": 1 - self.preference * (batch.reward_N - group_mean(batch, batch.reward_N))}

    def __call__(self, batch: Batch, forward: Forward) -> Tensor:
        mask_NT = usable(batch, forward.logp_NT, batch.signals["ref_logp"])
        logp_NT = safe(mask_NT, forward.logp_NT)
        term_NT = self.per_token(safe(mask_NT, batch.signals["ref_logp"]).to(logp_NT.dtype) - logp_NT)
        if self.corrected:
            term_NT = term_NT * log_ratio(logp_NT.detach(), batch.behaviour_NT)[0].exp()
        if self.preference:
            term_NT = term_NT * batch.signals["kl_weight"].to(term_NT.dtype)[:, None]
        return self.coef * token_mean(batch, term_NT, mask_NT)

    def per_token(self, d_NT: Tensor) -> Tensor:
        """The estimate at log-ratio d = log q - log pi."""
        if self.estimator == "k1":
            return -d_NT
        if self.estimator == "k2":
            return d_NT**2 / 2
        return d_NT.clamp(-20, 20).exp() - 1 - d_NT
