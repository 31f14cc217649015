"""Prompts are sorted into bins by how often they are solved, and bins with a high loss weigh more (Prompt-GDRO).

    l_i = mean over tokens of max(-A rho, -A clip(rho, 1 - low, 1 + high));   S_b = EMA of a bin's mean l, rate beta
    form paper   W = min(exp(eta clip(S_b, +-C)), most)
    form share   q = (1 - gamma) w / sum w + gamma / B,  w = exp(eta S_b),  over the B bins of the step;
                 W = min(q_b / mean of q over the step's rollouts, most)
    M = 1

A prompt's bin is that of its last `horizon` groups' any-right bits; it changes only `slack` beyond a border.

Source: Prompt-GDRO of verl-gdro (kishanpb/verl-gdro) and its paper, eq. 10 to 21: `paper` is the paper's weight,
`share` the code's, which may z-score S over bins first (`z_score`, capped at C). The code multiplies advantages by W.
Odd cases: a prompt never seen is in the lowest bin; a bin never seen has S 0. S moves after the step, at the policy
before it, so it is driven by off-policy steps and by length: a group's mean-zero loss is about 0. Beyond `prompts` the
one seen longest ago is forgotten. Acts beside a ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import per_token, row_mean
from services.learning.weight import Weighed, everywhere, log_ratio
from services.learning.weight._bins import Bins, told


@dataclass(frozen=True)
class PromptGdro:
    """S [.2, -.1, .5]: W [1.138828, .937067, 1.384031]; of 2, 1, 1 rollouts' z-scores: [.858408, .392969, 1.890214]."""

    form: str = knob("paper", "whose weight", choices=("paper", "share"))
    eta: float = knob(0.65, "strength (the class's default .1)", ge=0)
    gamma: float = knob(0.01, "share given to all bins alike", unit="share", ge=0, le=1)
    beta: float = knob(0.12, "rate of a bin's average", unit="share", gt=0, le=1)
    most: float = knob(15.0, "largest weight", gt=0)
    cap: float = knob(3.0, "bound on |S|, or on its z-score", gt=0)
    z_score: bool = knob(False, "standardise S over the step's bins (form share)")
    debias: bool = knob(False, "divide a bin's mean loss by its share of the step")
    bins: int = knob(10, "bins of equal width, where there are no edges", ge=1)
    edges: tuple[float, ...] = knob((), "borders between bins (.4, .75 or .1, .2, .4, .6, .8, .9)")
    slack: float = knob(0.03, "how far beyond a border a prompt must come", unit="share", ge=0, lt=1)
    horizon: int = knob(50, "groups that a prompt's share is taken over", unit="groups", ge=1)
    prompts: int = knob(200_000, "prompts that are remembered", unit="prompts", ge=1)
    low: float = knob(0.2, "how far the ratio may fall in the bin's loss", unit="ratio", ge=0, le=1)
    high: float = knob(0.28, "how far the ratio may rise in the bin's loss", unit="ratio", ge=0)

    __post_init__ = check

    needs: ClassVar[frozenset[str]] = frozenset({"step_logp"})

    def open(self, optimizer: Any) -> _Running:
        """No prompt seen, no bin scored."""
        edges = list(self.edges) or [k / self.bins for k in range(1, self.bins)]
        bins = Bins(edges, self.slack, self.horizon, self.prompts)
        return _Running(self, bins, torch.zeros(len(edges) + 1, dtype=torch.float64))

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        weight_N1 = batch.signals["gdro_weight"].to(logp_NT.dtype)[:, None]
        return Weighed(weight_N1.expand_as(logp_NT), everywhere(logp_NT))

    def weights(self, score_B: Tensor, count_B: Tensor) -> Tensor:
        """Weight of each bin, where the step has `count_B` rollouts in each, [B]."""
        if self.form == "paper":
            return (self.eta * score_B.clamp(-self.cap, self.cap)).exp().clamp(max=self.most)
        share_B = self.shares(score_B, count_B > 0)
        return (share_B / ((share_B * count_B).sum() / count_B.sum().clamp(min=1)).clamp(min=1e-12)).clamp(
            max=self.most
        )

    def shares(self, score_B: Tensor, there_B: Tensor) -> Tensor:
        """q of each bin that is there, [B]; 0 for the others."""
        if self.z_score and there_B.any():
            mean, std = score_B[there_B].mean(), score_B[there_B].std(correction=0)
            score_B = ((score_B - mean) / std.clamp(min=1e-3)).clamp(-self.cap, self.cap)
        raw_B = (self.eta * score_B).exp() * there_B
        return ((1 - self.gamma) * raw_B / raw_B.sum().clamp(min=1e-12) + self.gamma / there_B.sum()) * there_B

    def losses(self, batch: Batch) -> Tensor:
        """l of each rollout at the policy before the step, [N]."""
        advantage_NT = per_token(batch.signals["advantage"], batch.behaviour_NT).to(batch.behaviour_NT.dtype)
        ratio_NT = log_ratio(batch.signals["step_logp"], batch.prox_NT)[0].exp()
        worse_NT = torch.maximum(-advantage_NT * ratio_NT, -advantage_NT * ratio_NT.clamp(1 - self.low, 1 + self.high))
        return row_mean(worse_NT, batch.mask_NT)


@dataclass
class _Running:
    """`score_B`, `seen_B`: each bin's average and how many steps had it. The same on every rank."""

    part: PromptGdro
    bins: Bins
    score_B: Tensor
    seen_B: Tensor = field(init=False)
    _found: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        self.seen_B = torch.zeros_like(self.score_B)

    def __call__(self, batch: Batch, logp_NT: Tensor, advantage_NT: Tensor) -> Weighed:
        return self.part(batch, logp_NT, advantage_NT)

    def over_step(self, batch: Batch) -> dict[str, Tensor]:
        """The weight of each rollout. Collective."""
        bin_N = self.bins.of(batch)
        place_N, ones_N = bin_N.cpu(), torch.ones(len(batch), dtype=torch.float64)
        sums = torch.stack([torch.zeros_like(self.score_B)] * 2)
        sums[0].index_add_(0, place_N, ones_N)
        sums[1].index_add_(0, place_N, self.part.losses(batch).double().cpu())
        count_B, loss_B = batch.world.sum(sums.to(batch.world.device)).cpu()
        self._found = count_B, loss_B
        return {"gdro_weight": self.part.weights(self.score_B, count_B).to(batch.behaviour_NT)[bin_N]}

    def after_step(self, batch: Batch, score: Any) -> tuple[list[Any], dict[str, float]]:
        """Bins move towards their mean loss, prompts get their new bit. Collective."""
        count_B, loss_B = self._found
        mean_B = loss_B / count_B.clamp(min=1)
        if self.part.debias:
            mean_B = mean_B * count_B.sum() / count_B.clamp(min=1)
        rate_B = torch.where(self.seen_B > 0, self.part.beta, 1.0) * (count_B > 0)
        self.score_B = self.score_B + rate_B * (mean_B - self.score_B)
        self.seen_B = self.seen_B + (count_B > 0)
        self.bins.see(told(batch))
        return [], {}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The same on every rank."""
        return {"score": self.score_B.clone(), "seen": self.seen_B.clone()}, {"prompts": self.bins.known}

    def load(self, shards: list[tuple[Mapping[str, Tensor], Mapping[str, Any]]]) -> None:
        """Go on from any rank's state."""
        tensors, meta = shards[0]
        self.score_B, self.seen_B = tensors["score"].cpu().double(), tensors["seen"].cpu().double()
        self.bins.known = {prompt: (bits, place) for prompt, (bits, place) in meta["prompts"].items()}
