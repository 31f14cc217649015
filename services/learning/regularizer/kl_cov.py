"""A pull back on the tokens whose log-prob and advantage move most together, to keep entropy up (KL-Cov).

    cov_t = (A_t - mean A) (logp_t - mean logp)
    loss += coef * sum_t |logp_t - prox_t| / (trained tokens)    over the top `share` of the tokens by cov

Source: "The Entropy Mechanism of Reinforcement Learning", arXiv:2505.22617; verl's `kl_cov`, whose policy term has no
clip at all (the weight part `ratio`).
Odd cases: at least one token is selected; ties at the threshold together. At logp = prox the term has no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.covariance import covariance
from services.learning.likelihood import Forward
from services.learning.regularizer import safe, token_mean, usable


@dataclass(frozen=True)
class KlCov:
    """A [1, -1, 1, -1], logp [-.1, -.2, -2, -3]: cov [1.225, -1.125, -.675, 1.675], one of four: the last."""

    coef: float = knob(1.0, "strength", unit="per nat", ge=0)
    share: float = knob(2e-4, "tokens selected", unit="share", ge=0, le=1)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"step_logp"})

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """Which tokens are selected."""
        cov_NT, usable_NT = covariance(batch, batch.signals["step_logp"])
        cov_K = torch.cat(batch.world.gather_rows(cov_NT[usable_NT][:, None])).flatten()
        if not len(cov_K):
            return {"kl_cov_selected": usable_NT}
        count = max(1, int(self.share * batch.denominators.tokens))
        return {"kl_cov_selected": usable_NT & (cov_NT >= cov_K.topk(min(count, len(cov_K))).values[-1])}

    def __call__(self, batch: Batch, forward: Forward) -> Tensor:
        mask_NT = usable(batch, forward.logp_NT, batch.prox_NT) & batch.signals["kl_cov_selected"]
        gap_NT = safe(mask_NT, forward.logp_NT) - safe(mask_NT, batch.prox_NT)
        return self.coef * token_mean(batch, gap_NT.abs(), mask_NT)
