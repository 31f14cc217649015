"""Online rollout pruning: of a request's rollouts, some go on so that right and wrong ones balance (ARRoL).

    s_i = clip(keep (share q_i / m + (1 - share) (1 - q_i) / (1 - m)), 0, 1),   m = mean of q
    rollout i goes on with chance s_i
    q_i = (right + 1) / (all + 2) of its bin of mean log-prob, where `bins` are given
          else sigmoid(logit(belief) + slope z_i),   z = standardised mean log-prob of the tokens so far

Source: ARRoL, "Prune as You Generate", arXiv:2603.24840; keep 0.5, share 0.5, 512 tokens. The gate's formula and the
smoothing of the bins are the reference notes' guess: the authors' repository has no code.
Odd cases. ARRoL's q comes from a head on the hidden states, trained on verdicts; here it is the predictor above, which
needs neither: `bins` can be counted from the rollouts and verdicts of an earlier run; with slope 0 chances are equal.
What ended before `look_at` is never pruned; at least `survivors` are left, those of the highest chance first. The sum
of s is keep times their number unless one is clipped. Pruned rollouts end ABORTED, reason "pruned", and are dropped;
the estimate is not corrected by 1/s, nor is the paper's. Groups are the rollouts of one request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.knobs import check, knob
from services.generation.guidance import Try
from sluice.v1 import prompt_pb2

LEAST = 1e-6


@dataclass(frozen=True)
class Arrol:
    """q = [.9, .8, .7, .2] has s = [.417582, .450549, .483516, .648352]; bins 30/70, 60/40, 90/10 have q .303922,
    .598039, .892157.

    >>> Arrol().survival(np.array([0.9, 0.8, 0.7, 0.2])).round(6).tolist()
    [0.417582, 0.450549, 0.483516, 0.648352]
    """

    look_at: int = knob(512, "sampled tokens after which a rollout is looked at", unit="tokens", ge=1)
    keep_rate: float = knob(0.5, "share of the rollouts looked at that go on", unit="share", gt=0, le=1)
    share: float = knob(0.5, "share of right ones wanted among them", unit="share", ge=0, le=1)
    survivors: int = knob(2, "rollouts of a request that are left at least", ge=1)
    slope: float = knob(1.0, "logits of quality for one standard deviation of mean log-prob")
    bins: tuple[tuple[float, int, int], ...] = knob(
        (), "calibration: (highest mean log-prob, right, all) of each bin, in order"
    )

    confidence: ClassVar[str] = "guess"

    def __post_init__(self) -> None:
        check(self)
        edges = [one[0] for one in self.bins]
        if edges != sorted(edges) or any(len(one) != 3 or not 0 <= one[1] <= one[2] for one in self.bins):
            raise ValueError(f"knob bins is {self.bins}; accepted: (edge, right, all) with edges that rise")

    def keep(self, tries: Sequence[Try], ended: int, history: prompt_pb2.Belief) -> set[int]:
        """Indices of those that go on."""
        chance_N = self.survival(self.quality(tries, history.mean if history.effective_n else 0.5))
        kept = {one.index for one, chance in zip(tries, chance_N, strict=True) if one.draw < chance}
        likeliest = sorted(zip(-chance_N, (one.index for one in tries), strict=True))
        for _, index in likeliest:
            if len(kept) + ended >= self.survivors:
                break
            kept.add(index)
        return kept

    def survival(self, quality_N: np.ndarray) -> np.ndarray:
        """Chance of each to go on, from how likely each is to be right."""
        q_N = np.clip(quality_N, LEAST, 1 - LEAST)
        mean = q_N.mean()
        chance_N = self.share * q_N / mean + (1 - self.share) * (1 - q_N) / (1 - mean)
        return np.clip(self.keep_rate * chance_N, 0.0, 1.0)

    def quality(self, tries: Sequence[Try], believed: float) -> np.ndarray:
        """How likely each is to be right; `believed`: the prompt's pass rate."""
        mean_N = np.array([np.mean(one.logprobs) for one in tries], dtype=np.float64)
        if self.bins:
            at_N = np.searchsorted([edge for edge, _, _ in self.bins[:-1]], mean_N)
            return np.array([(self.bins[at][1] + 1) / (self.bins[at][2] + 2) for at in at_N])
        spread = mean_N.std()
        z_N = (mean_N - mean_N.mean()) / spread if spread > 0 else np.zeros_like(mean_N)
        middle = min(max(believed, 0.05), 0.95)
        return 1 / (1 + np.exp(-(math.log(middle / (1 - middle)) + self.slope * z_N)))
