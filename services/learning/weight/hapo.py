"""Heterogeneous treatment of tokens by entropy: an asymmetric adaptive clip and a redistributed advantage (HAPO).

    z = (log H - pivot) / std,   pivot = nearest-rank quantile of log H over the step's tokens, std = rms about it
    h = z / max z where z > 0,   z / |min z| where z < 0                                            h in [-1, 1]
    clip    h <= 0: low' = low (1 - alpha h);    h > 0: high' = high (1 + alpha h)
    A' = A (1 + beta h), used outside the band 1 - low'/2 < ratio < 1 + high'/2 where h > 0 and inside it where h <= 0
    W = ratio times A'/A, M as PPO's clip at (low', high', dual)

Source: HAPO, arXiv:2509.16591, and its released code, which divides negative z by min z itself: h is then never
negative, low-entropy tokens get the high-entropy treatment; `sign_error: true` does the same.
Odd cases: statistics are of the whole step (released: of a micro-batch). Entropies below 1e-8 count as 1e-8. Equal
entropies: h = 0. At h = -1 and ratio 1 the coefficient is 0. `beta: 0` is the adaptive clip alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.weight import Weighed, log_ratio, unclipped


@dataclass(frozen=True)
class Hapo:
    """H = [.01, .05, .2, .8, 1.6]: h = [-1, -.632718, -.316359, 0, 1]; low' = [.4, .326544, .263272, .2, .2]."""

    pivot: float = knob(0.8, "quantile of log H that splits tokens", unit="share", ge=0, le=1)
    alpha: float = knob(1.0, "how much the clip widens", ge=0)
    beta: float = knob(1.0, "how much the advantage is redistributed", ge=0, le=1)
    low: float = knob(0.2, "how far the ratio may fall below 1", unit="ratio", ge=0, le=1)
    high: float = knob(0.2, "how far the ratio may rise above 1", unit="ratio", ge=0)
    dual: float | None = knob(10.0, "largest ratio that still pulls where A < 0; null disables", unit="ratio", gt=1)
    sign_error: bool = knob(False, "scale negative z as the released code does")

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"entropy"})

    @property
    def shapes(self) -> str:
        """What becomes of the coefficient where all policies agree."""
        return "tokens of low entropy weigh 1 + beta h" if self.beta else ""

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """h of each token."""
        log_NT = batch.signals["entropy"].clamp(min=1e-8).log()
        log_K = torch.cat(batch.world.gather_rows(log_NT[batch.mask_NT][:, None])).flatten()
        return {"hapo_h": self.spread(log_NT, log_K)}

    def spread(self, log_NT: Tensor, log_K: Tensor) -> Tensor:
        """h at log-entropies `log_NT`, of a step whose trained tokens have `log_K`."""
        if not len(log_K):
            return torch.zeros_like(log_NT)
        pivot = log_K.quantile(self.pivot, interpolation="nearest")
        std = ((log_K - pivot) ** 2).mean().sqrt()
        if std == 0:
            return torch.zeros_like(log_NT)
        z_NT, most, least = (log_NT - pivot) / std, (log_K.max() - pivot) / std, (log_K.min() - pivot) / std
        below = least if self.sign_error else -least
        h_NT = torch.where(z_NT > 0, z_NT / most.clamp(min=1e-12), torch.zeros_like(z_NT))
        return torch.where((z_NT < 0) & (least < 0), z_NT / below, h_NT).clamp(-1, 1)

    def bounds(self, h_NT: Tensor) -> tuple[Tensor, Tensor]:
        """(low', high') at h."""
        low_NT = torch.where(h_NT <= 0, self.low * (1 - self.alpha * h_NT), torch.full_like(h_NT, self.low))
        return low_NT, torch.where(h_NT > 0, self.high * (1 + self.alpha * h_NT), torch.full_like(h_NT, self.high))

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        log_NT, inside_NT = log_ratio(logp_NT, batch.prox_NT)
        ratio_NT, h_NT = log_NT.exp(), batch.signals["hapo_h"].to(logp_NT.dtype)
        low_NT, high_NT = self.bounds(h_NT)
        open_NT = inside_NT & unclipped(ratio_NT, advantage_NT, low_NT, high_NT)
        if self.dual is not None:
            open_NT = open_NT & ~((advantage_NT < 0) & (ratio_NT > self.dual))
        band_NT = (ratio_NT > 1 - low_NT / 2) & (ratio_NT < 1 + high_NT / 2)
        factor_NT = torch.where((h_NT > 0) ^ band_NT, 1 + self.beta * h_NT, torch.ones_like(h_NT))
        return Weighed(ratio_NT * factor_NT, open_NT)
