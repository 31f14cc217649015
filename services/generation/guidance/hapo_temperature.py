"""Hotter where the policy is unsure, cooler where it is sure: each token's temperature by its entropy (HAPO).

    z = (log H - pivot) / std,   pivot = nearest-rank quantile of log H over earlier tokens, std = rms about it
    h = z / max z where z > 0,   z / |min z| where z < 0,   clipped to [-1, 1]
    T' = T (1 + tau h)

Source: HAPO, arXiv:2509.16591, tau 0.05, pivot 0.8, statistics of the previous training step. The released code divides
negative z by min z itself, so that sure tokens are heated too; this is the formula as published.
Odd cases. The statistics are of what this engine sampled for training under the version before; until there are enough
tokens of one, temperatures stay as asked for. H is of the distribution at temperature 1. Entropies below 1e-8 count as
1e-8; equal entropies: h = 0. h is rounded to `levels` steps on either side, so that a rollout has few spans; every span
carries its temperature and the learner applies it. 0 levels: not rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.generation.guidance import Stats

LEAST = 1e-8


@dataclass(frozen=True)
class HapoTemperature:
    """H = [.01, .05, .2, .8, 1.6], measured on themselves, T = 1: [.95, .968364, .984182, 1, 1.05].

    >>> part, entropy_N = HapoTemperature(levels=0), np.array([0.01, 0.05, 0.2, 0.8, 1.6])
    >>> part.temperatures(entropy_N, np.ones(5), part.measured(entropy_N)).round(6).tolist()
    [0.95, 0.968364, 0.984182, 1.0, 1.05]
    """

    tau: float = knob(0.05, "largest change, as a share of the temperature", unit="share", ge=0, lt=1)
    pivot: float = knob(0.8, "quantile of log H at which nothing changes", unit="share", gt=0, le=1)
    levels: int = knob(5, "steps of h on either side of 0; 0 does not round", ge=0)

    confidence: ClassVar[str] = "code"
    engines: ClassVar[tuple[str, ...]] = ("transformers",)
    __post_init__ = check

    def measured(self, entropy_K: np.ndarray) -> Stats:
        """Pivot, spread and scales of log H."""
        log_K = np.sort(np.log(np.maximum(entropy_K, LEAST)))
        pivot = float(log_K[max(0, math.ceil(round(self.pivot * len(log_K), 9)) - 1)])
        std = float(np.sqrt(np.mean((log_K - pivot) ** 2)))
        if std == 0:
            return Stats(pivot, 0.0, 0.0, 0.0)
        return Stats(pivot, std, float(log_K[-1] - pivot) / std, float(pivot - log_K[0]) / std)

    def temperatures(self, entropy_N: np.ndarray, temperature_N: np.ndarray, stats: Stats) -> np.ndarray:
        """T' of each draw."""
        if stats.std == 0:
            return temperature_N
        z_N = (np.log(np.maximum(entropy_N, LEAST)) - stats.pivot) / stats.std
        scale_N = np.where(z_N > 0, stats.above, stats.below)
        h_N = np.clip(np.divide(z_N, scale_N, out=np.zeros_like(z_N), where=scale_N > 0), -1.0, 1.0)
        if self.levels:
            h_N = np.round(h_N * self.levels) / self.levels
        return temperature_N * (1 + self.tau * h_N)
