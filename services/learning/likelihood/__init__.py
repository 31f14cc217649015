"""Log-probs with a gradient: `(model, batch, wanted) -> Forward`.

`wanted` names what else the forward pass should bring along; each provider says in `provides` what it can.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Forward:
    """What one pass of the policy over a batch gave, with its graph."""

    logp_NT: Tensor
    """Log-prob of each sampled token at the temperature it was sampled at, nats; 0 on padding."""
    signals: dict[str, Tensor] = field(default_factory=dict)
    """What was wanted besides; 0 on padding.

    "entropy", "collision" [N, T], "logits" [N, T, V], "hidden" [N, T, D]; "top": "top_ids" and "top_logp" [N, T, K] of
    the likeliest tokens; "picked" [N, T, P]: log-probs of the tokens in the batch's signal "pick"; "tempered"
    [N, T, 2]: log-probs at a lower and a higher temperature; and what heads make of "hidden".
    """
