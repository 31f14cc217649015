"""Drawing tokens: the next token of every row at once.

One uniform number decides a token, by inverting the cumulative distribution. The number is a function of the job's seed
and the token's index alone (SplitMix64, Steele et al. 2014, doi:10.1145/2660193.2660195), so a job's draws do not
depend on what else is in the batch.

Axes: N rows, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def mix(bits: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: uint64 in, well mixed uint64 out.

    >>> int(mix(np.array([0x9E3779B97F4A7C15], dtype=np.uint64))[0]) == 0xE220A8397B1DCDAF
    True
    """
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX_1
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX_2
    return bits ^ (bits >> np.uint64(31))


def uniform(seed_N: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    """A number in (0, 1) for token `index` of the job with that (mixed) seed; float64.

    40 bits: fine enough for any vocabulary, and far enough from 1 that rounding never lands behind the last token.
    """
    bits_N = mix(seed_N + (index_N.astype(np.uint64) + np.uint64(1)) * _GAMMA)
    return ((bits_N >> np.uint64(24)).astype(np.float64) + 0.5) * 2.0**-40


def draw(logits_NV: Tensor, temperature_N: Tensor, uniform_N: Tensor) -> tuple[Tensor, Tensor]:
    """(token, log-prob of it) of every row. Rows of temperature 0 take the likeliest token.

    >>> logits = torch.tensor([[0.0, 0.0], [0.0, 9.0]])
    >>> token, logp = draw(logits, torch.tensor([1.0, 0.0]), torch.tensor([0.4, 0.9], dtype=torch.float64))
    >>> token.tolist(), round(logp[0].item(), 4)
    ([0, 1], -0.6931)
    """
    greedy_N = temperature_N == 0
    scale_N1 = torch.where(greedy_N, 1.0, temperature_N)[:, None]
    logp_NV = torch.log_softmax(logits_NV.float() / scale_N1, dim=-1)
    cdf_NV = logp_NV.exp().cumsum(-1, dtype=torch.float64)
    target_N1 = uniform_N[:, None] * cdf_NV[:, -1:]
    token_N1 = torch.searchsorted(cdf_NV, target_N1, right=True)
    if bool(greedy_N.any()):
        token_N1 = torch.where(greedy_N[:, None], logp_NV.argmax(-1, keepdim=True), token_N1)
    return token_N1[:, 0], logp_NV.gather(1, token_N1)[:, 0]


def restrict(logits_NV: Tensor, temperature_N: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Logits with what top-k, nucleus and min-p leave out at minus infinity; for evaluation only.

    Settings are per row, float or int of shape [N]; 0, 1 and 0 mean off. All three look at the tempered distribution.

    >>> logits, one = torch.tensor([[3.0, 2.0, 1.0]]), torch.ones(1)
    >>> restrict(logits, one, top_k=torch.tensor([2]), top_p=one, min_p=torch.zeros(1)).tolist()
    [[3.0, 2.0, -inf]]
    """
    scale_N1 = torch.where(temperature_N == 0, 1.0, temperature_N)[:, None]
    prob_NV, order_NV = torch.softmax(logits_NV.float() / scale_N1, dim=-1).sort(dim=-1, descending=True)
    rank_V = torch.arange(prob_NV.shape[1], device=logits_NV.device)
    limit_N1 = torch.where(top_k == 0, prob_NV.shape[1], top_k)[:, None]
    before_NV = prob_NV.cumsum(-1) - prob_NV
    drop_NV = (rank_V >= limit_N1) | (before_NV >= top_p[:, None]) | (prob_NV < min_p[:, None] * prob_NV[:, :1])
    drop_NV[:, 0] = False
    return logits_NV.masked_fill(torch.zeros_like(drop_NV).scatter(1, order_NV, drop_NV), float("-inf"))
