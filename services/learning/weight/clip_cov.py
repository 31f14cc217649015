"""A few tokens whose log-prob and advantage move together are left out, at random, to keep entropy up (Clip-Cov).

    cov_t = (A_t - mean A) (logp_t - mean logp), means over the step's trained tokens
    M = 0 for max(1, floor(share tokens)) tokens drawn from those that PPO's clip leaves open and that have
        cov_low < cov_t < cov_high;    else W, M as PPO's clip

Source: "The Entropy Mechanism of Reinforcement Learning", arXiv:2505.22617; verl's `clip_cov`.
Odd cases: the draw depends on the rollout's key, the token's place and the version only, so the same tokens are drawn
however the step is cut. Fewer candidates than are to be drawn: all of them. Beyond the clamp at 20 nats the loss is
flat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.covariance import covariance
from services.learning.lottery import tickets
from services.learning.reduce import per_token
from services.learning.weight import Weighed, log_ratio, unclipped


@dataclass(frozen=True)
class ClipCov:
    """A [1, -1, 1, -1], logp [-.1, -.2, -2, -3]: cov [1.225, -1.125, -.675, 1.675], candidates 0 and 3."""

    share: float = knob(2e-4, "tokens drawn", unit="share", ge=0, le=1)
    cov_low: float = knob(1.0, "candidates have more", unit="advantage nats")
    cov_high: float = knob(5.0, "candidates have less", unit="advantage nats")
    low: float = knob(0.2, "how far the ratio may fall below 1", unit="ratio", ge=0, le=1)
    high: float = knob(0.2, "how far the ratio may rise above 1", unit="ratio", ge=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"step_logp"})
    shapes: ClassVar[str] = "the drawn tokens have coefficient 0"

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """Which tokens were drawn."""
        logp_NT = batch.signals["step_logp"]
        cov_NT, usable_NT = covariance(batch, logp_NT)
        open_NT = self._clip(batch, logp_NT, per_token(batch.signals["advantage"], logp_NT)).mask_NT
        candidate_NT = usable_NT & (open_NT > 0) & (cov_NT > self.cov_low) & (cov_NT < self.cov_high)
        ticket_NT = tickets(batch)
        ticket_K = torch.cat(batch.world.gather_rows(ticket_NT[candidate_NT][:, None])).flatten().sort().values
        count = max(1, int(self.share * batch.denominators.tokens))
        last = ticket_K[min(count, len(ticket_K)) - 1] if len(ticket_K) else ticket_K.new_tensor(-1.0)
        return {"clip_cov_drawn": candidate_NT & (ticket_NT <= last)}

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        clip = self._clip(batch, logp_NT, advantage_NT)
        return Weighed(clip.weight_NT, clip.mask_NT & ~batch.signals["clip_cov_drawn"])

    def _clip(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, inside_NT = log_ratio(logp_NT, batch.prox_NT)
        ratio_NT = log_NT.exp()
        return Weighed(ratio_NT, inside_NT & unclipped(ratio_NT, advantage_NT, self.low, self.high))
