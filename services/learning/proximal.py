"""The proximal policy: whom ratios are taken to where it is not the policy that sampled.

    recompute   prox_t = sg(logp_t)                                     the policy at the start of the step
    loglinear   prox_t = behaviour_t + alpha_t (sg(logp_t) - behaviour_t)
    linear      prox_t = log((1 - alpha_t) e^behaviour_t + alpha_t e^sg(logp_t))

    alpha_t = clamp((lag_t - 1) / lag_t, 0, 1), 0 where lag_t <= 0: the policy one version back, approximated

Source: decoupled PPO in AReaL, arXiv:2505.24298 (recompute), and its `prox_approx` (log-linear and linear, with
v_prox = v - 1), which saves the second forward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.learning.batch import Batch


def proximal(kind: str, batch: Batch, logp_NT: Tensor) -> Tensor:
    """Log-probs [N, T] under the proximal policy of this kind; `logp_NT` is detached, of the step's start.

    A token whose log-prob is minus infinity under the policy that sampled it stays undefined.

    >>> import types
    >>> batch = types.SimpleNamespace(lag_NT=torch.tensor([[3, 1]]), behaviour_NT=torch.tensor([[-1.0, -0.5]]))
    >>> proximal("loglinear", batch, torch.tensor([[-0.6, -0.6]]))  # versions 4 and 6 in step 7
    tensor([[-0.7333, -0.5000]])
    """
    if kind == "recompute":
        return logp_NT
    lag_NT = batch.lag_NT.to(logp_NT.dtype)
    alpha_NT = torch.where(lag_NT > 0, (lag_NT - 1) / lag_NT.clamp(min=1), torch.zeros_like(lag_NT)).clamp(0, 1)
    behaviour_NT = batch.behaviour_NT
    if kind == "loglinear":
        mixed_NT = behaviour_NT + alpha_NT * (logp_NT - behaviour_NT)
    else:
        mixed_NT = ((1 - alpha_NT) * behaviour_NT.exp() + alpha_NT * logp_NT.exp()).log()
    return torch.where(alpha_NT > 0, mixed_NT, behaviour_NT)
