"""Additive terms with a denominator of their own: `(batch, forward) -> scalar`, with a gradient.

A part with statistics over the step or over groups makes them in `over_step(batch)`, as weight parts do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.learning.batch import Batch


def token_mean(batch: Batch, term_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Sum of `term_NT` where `mask_NT`, over the trained tokens of the whole step: what a micro-batch adds to the mean.

    A term that is not selected has no gradient, whatever it is.
    """
    kept_NT = torch.where(mask_NT, term_NT, torch.zeros_like(term_NT))
    return kept_NT.sum() / max(batch.denominators.tokens, 1.0)


def usable(batch: Batch, *logps_NT: Tensor) -> Tensor:
    """Trained tokens at which all of these log-probs are finite, bool [N, T]."""
    found_NT = batch.mask_NT
    for logp_NT in logps_NT:
        found_NT = found_NT & logp_NT.detach().isfinite()
    return found_NT


def safe(mask_NT: Tensor, logp_NT: Tensor) -> Tensor:
    """`logp_NT` where `mask_NT`, else 0 without a gradient."""
    return torch.where(mask_NT, logp_NT, torch.zeros_like(logp_NT))
