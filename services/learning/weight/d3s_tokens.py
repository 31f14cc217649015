"""Train on the tokens that count: the largest products of advantage and entropy (token selection of D3S).

    M_t = 1 for the top `keep` of the step's trained tokens by |A_t| H_t,    W = 1
    keep goes from `keep` to `final` in a straight line over `steps` versions

Source: D3S, arXiv:2509.22115 (entropy of the policy before the step); the shares are a guess, the paper's were not
found.
Odd cases: ties at the threshold stay together; at least one token stays. All advantages 0: everything ties and stays.
The paper's token mean is over what is kept: the denominator's `shrink`. Acts beside a clipped ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import per_token
from services.learning.weight import Weighed


@dataclass(frozen=True)
class D3sTokens:
    """|A| H = [.1, 2, .5, 1.2] at half: tokens 1 and 3. From .3 to 1, half way: 0.65."""

    keep: float = knob(0.3, "share of the tokens kept at first", unit="share", gt=0, le=1)
    final: float = knob(1.0, "share kept in the end", unit="share", gt=0, le=1)
    steps: int = knob(500, "versions until then", unit="versions", ge=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})
    shapes: ClassVar[str] = "tokens that are not selected have coefficient 0"

    def share(self, version: int) -> float:
        """Share of the tokens that step `version` keeps."""
        progress = min(1.0, version / self.steps) if self.steps else 1.0
        return (1 - progress) * self.keep + progress * self.final

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """Which tokens are kept."""
        entropy_NT = batch.signals["entropy"]
        score_NT = per_token(batch.signals["advantage"], entropy_NT).abs() * entropy_NT
        score_K = torch.cat(batch.world.gather_rows(score_NT[batch.mask_NT][:, None])).flatten()
        if not len(score_K):
            return {"d3s_kept": batch.mask_NT}
        count = max(1, round(self.share(batch.version) * len(score_K)))
        return {"d3s_kept": batch.mask_NT & (score_NT >= score_K.topk(count).values[-1])}

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        return Weighed(torch.ones_like(logp_NT), batch.signals["d3s_kept"])
