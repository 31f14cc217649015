"""Generalised advantages along a rollout: a reverse scan over its trained tokens in log2(T) passes, no loop over rows.

    delta_t = r_t + gamma V_{t+1} - V_t,    A_t = delta_t + gamma lam A_{t+1}

Tokens that are not trained on (an environment's, injected ones) are stepped over: the next trained token follows. The
reward of the rollout stands at its last trained token, and what comes after it is worth 0, or, for a rollout that was
cut, what the last token is worth (`edge`).
"""

from __future__ import annotations

import torch
from torch import Tensor


def generalised(
    reward_N: Tensor, value_NT: Tensor, mask_NT: Tensor, gamma: float, lam: float, edge_N: Tensor | None = None
) -> Tensor:
    """Advantages [N, T], 0 off the mask. `edge_N`: rollouts that are not over at their last token.

    >>> value, mask = torch.tensor([[0.2, 0.3, 0.5, 0.6]]), torch.ones(1, 4, dtype=torch.bool)
    >>> generalised(torch.zeros(1), value, mask, 1.0, 0.95)
    tensor([[-0.1342, -0.2465, -0.4700, -0.6000]])
    >>> generalised(torch.zeros(1), value, mask, 1.0, 0.95, torch.tensor([True]))
    tensor([[0.3803, 0.2950, 0.1000, 0.0000]])
    """
    order_NT = torch.argsort((~mask_NT).to(torch.uint8), dim=1, stable=True)
    kept_NT = mask_NT.gather(1, order_NT)
    value_NT = torch.where(kept_NT, value_NT.gather(1, order_NT), torch.zeros_like(value_NT))
    last_NT = kept_NT & ~torch.nn.functional.pad(kept_NT, (0, 1))[:, 1:]
    after_NT = torch.nn.functional.pad(value_NT, (0, 1))[:, 1:]
    if edge_N is not None:
        after_NT = torch.where(last_NT & edge_N[:, None], value_NT, after_NT)
    reward_NT = last_NT * reward_N[:, None].to(value_NT.dtype)
    found_NT = torch.where(kept_NT, reward_NT + gamma * after_NT - value_NT, torch.zeros_like(value_NT))
    return torch.zeros_like(value_NT).scatter(1, order_NT, _scan(found_NT, gamma * lam) * kept_NT)


def _scan(delta_NT: Tensor, decay: float) -> Tensor:
    """x_t = delta_t + decay x_{t+1}, by doubling the reach of every pass."""
    found_NT, reach = delta_NT.clone(), 1
    while reach < delta_NT.shape[1] and decay:
        found_NT[:, :-reach] += decay**reach * found_NT[:, reach:].clone()
        reach *= 2
    return found_NT
