"""Temperatures token by token: a guidance part's rule, fed with the entropies of what is drawn.

Statistics are taken anew with every version of the weights, of the tokens drawn for training under the one before.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import torch
from torch import Tensor

from services.generation.guidance import Heats, Stats

LEAST_TOKENS = 256
"""Tokens of a version that it takes to measure it."""
MOST_TOKENS = 65_536
"""Newest tokens that are kept of one."""


class Heat:
    """Used by the engine's thread alone."""

    def __init__(self, part: Heats) -> None:
        self.part = part
        self.stats: Stats | None = None
        self._seen: deque[np.ndarray] = deque()
        self._tokens = 0

    def temperatures(self, logits_NV: Tensor, asked_N: np.ndarray, trains_N: np.ndarray) -> np.ndarray:
        """What each row is drawn at, float32; rows that are not for training keep what they ask for."""
        logp_NV = torch.log_softmax(logits_NV.float(), dim=-1)
        entropy_N = -(logp_NV.exp() * logp_NV.nan_to_num(neginf=0.0)).sum(-1).cpu().numpy().astype(np.float64)
        self._keep(entropy_N[trains_N])
        if self.stats is None:
            return asked_N
        heated_N = self.part.temperatures(entropy_N, asked_N.astype(np.float64), self.stats)
        return np.where(trains_N, heated_N, asked_N).astype(np.float32)

    def renew(self) -> None:
        """The weights are others now."""
        if self._tokens >= LEAST_TOKENS:
            self.stats = self.part.measured(np.concatenate(self._seen))
        self._seen.clear()
        self._tokens = 0

    def _keep(self, entropy_K: np.ndarray) -> None:
        self._seen.append(entropy_K)
        self._tokens += len(entropy_K)
        while self._tokens - len(self._seen[0]) >= MOST_TOKENS:
            self._tokens -= len(self._seen.popleft())
