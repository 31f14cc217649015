"""What a step did, in numbers: sums over trained tokens on all ranks, and three numbers per rollout.

Everything is gathered on the device while the gradient is made and read once at the end of the step.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from services.learning.batch import Batch
from services.learning.estimator import Loss
from services.learning.likelihood import Forward
from services.learning.reduce import per_token, row_mean

BINS, REACH = 2_000, 5.0
"""Log-ratios are counted in this many bins over [-REACH, REACH] nats; outliers go to the outermost."""
QUANTILES = {"ratio_p01": 0.01, "ratio_p50": 0.5, "ratio_p99": 0.99}

SUMS = ("tokens", "masked", "clipped", "ratio", "ratio_square", "kl", "entropy", "lag", "gap", "fresh")
"""What is added up over tokens."""


class Tally:
    """Adds up micro-batches. Token means are over trained tokens whose log-probs are finite."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        device = batch.token_NT.device
        self.sums: dict[str, Tensor] = {}
        self.peaks = torch.zeros(3, dtype=torch.float64, device=device)  # lag, log-prob gap, |log-ratio|
        self.bins = torch.zeros(BINS, dtype=torch.float64, device=device)
        self.rows_N3 = torch.zeros((len(batch), 3), dtype=torch.float64, device=device)

    def add(self, rows: list[int], batch: Batch, forward: Forward, loss: Loss) -> None:
        """One micro-batch: the rows `rows` of the step's batch, ascending."""
        logp_NT = forward.logp_NT.detach()
        mask_NT = batch.mask_NT & logp_NT.isfinite() & batch.behaviour_NT.isfinite()
        delta_NT = torch.where(mask_NT, logp_NT - batch.behaviour_NT, torch.zeros_like(logp_NT))
        ratio_NT = delta_NT.clamp(-20, 20).exp() * mask_NT
        gap_NT = delta_NT.abs() * (batch.lag_NT == 0)
        lag_NT = batch.lag_NT * mask_NT
        surprise_NT = -torch.where(mask_NT, logp_NT, torch.zeros_like(logp_NT))
        entropy_NT = forward.signals.get("entropy", surprise_NT).detach() * mask_NT
        self._sum(
            loss=loss.total,
            tokens=mask_NT.sum(),
            masked=batch.mask_NT.sum() - mask_NT.sum(),
            clipped=loss.clipped_NT.sum(),
            ratio=ratio_NT.sum(),
            ratio_square=(ratio_NT**2).sum(),
            kl=(ratio_NT - mask_NT.to(ratio_NT.dtype) - delta_NT).sum(),
            entropy=entropy_NT.sum(),
            lag=lag_NT.sum(),
            gap=gap_NT.sum(),
            fresh=(mask_NT & (batch.lag_NT == 0)).sum(),
            **{f"loss_{name}": value for name, value in loss.parts.items()},
        )
        if mask_NT.numel():
            peaks = torch.stack([x_NT.max().double() for x_NT in (lag_NT, gap_NT, delta_NT.abs())])
            self.peaks = torch.maximum(self.peaks, peaks)
            self.bins += torch.histc(delta_NT[mask_NT].float().clamp(-REACH, REACH), BINS, -REACH, REACH)
        advantage_NT = per_token(batch.signals["advantage"], logp_NT).expand_as(logp_NT)
        columns = (loss.weight_NT, advantage_NT, batch.lag_NT.to(logp_NT.dtype))
        self.rows_N3[rows] = torch.stack([row_mean(x_NT, batch.mask_NT).double() for x_NT in columns], 1)

    def metrics(self) -> dict[str, float]:
        """Metrics of the whole step by name. Collective.

        `ess`: effective sample size of the ratios to the behaviour policy, as a share of the tokens. `kl`: from the
        behaviour policy, k3. `entropy`: the forward pass's own where it made one, else the mean surprise of what was
        sampled. `logprob_gap_*`: trainer against engine on tokens of lag 0, nats.
        """
        batch = self.batch
        for name in ("reward", "accuracy", "truncated", "length"):
            self._sum(**{name: getattr(batch, f"{name}_N").sum()})
        self._sum(rows=torch.tensor(len(batch)))
        names = sorted(self.sums)
        sums = torch.stack([self.sums[name] for name in names])
        total = dict(zip(names, batch.world.sum(sums).tolist(), strict=True))
        peaks, bins = batch.world.max(self.peaks).tolist(), batch.world.sum(self.bins)
        return _ratios(total, peaks) | quantiles(bins)

    def expect(self, parts: list[str]) -> None:
        """Begin every sum at 0, so that a rank without rows sums the same names as the others."""
        names = ["loss", *(f"loss_{part}" for part in parts), *SUMS]
        self._sum(**{name: torch.zeros(()) for name in names})

    def _sum(self, **values: Tensor) -> None:
        for name, value in values.items():
            value = value.detach().to(self.bins.device, torch.float64)
            self.sums[name] = self.sums[name] + value if name in self.sums else value


def _ratios(total: dict[str, float], peaks: list[float]) -> dict[str, float]:
    tokens, rows = max(total["tokens"], 1.0), max(total["rows"], 1.0)
    found = {name: value for name, value in total.items() if name.startswith("loss")}
    found |= {f"{name}_mean": total[name] / rows for name in ("reward", "accuracy", "length")}
    found |= {f"{name}_mean": total[name] / tokens for name in ("ratio", "lag")}
    found |= {name: total[name] / tokens for name in ("kl", "entropy")}
    found |= {"clip_share": total["clipped"] / tokens, "truncated_share": total["truncated"] / rows}
    found |= {"tokens": total["tokens"], "rows": total["rows"], "nonfinite_tokens": total["masked"]}
    found |= {"lag_max": peaks[0], "log_ratio_max": peaks[2]}
    if total["fresh"]:
        found |= {"logprob_gap_mean": total["gap"] / total["fresh"], "logprob_gap_max": peaks[1]}
    square = total["ratio_square"]
    return found | {"ess": total["ratio"] ** 2 / (tokens * square) if square else 1.0}


def quantiles(bins: Tensor) -> dict[str, float]:
    """Ratio quantiles from counts of log-ratios, to half a bin (0.0025 nats).

    >>> counts = torch.zeros(BINS)
    >>> counts[BINS // 2] = 10
    >>> [round(value, 2) for value in quantiles(counts).values()]
    [1.0, 1.0, 1.0]
    """
    total = float(bins.sum())
    if not total:
        return {}
    running, width = bins.cumsum(0), 2 * REACH / BINS
    places = {name: int((running < share * total).sum()) for name, share in QUANTILES.items()}
    return {name: math.exp(-REACH + (min(place, BINS - 1) + 0.5) * width) for name, place in places.items()}
