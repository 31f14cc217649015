"""A random number for every token that depends on nothing but the token: its rollout, its place, the version.

A draw made with these numbers is the same in whatever order, micro-batches or ranks the step is trained, and again
after a restart. The mixing is SplitMix64's finaliser (Steele, Lea, Flood, 2014).
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from services.learning.batch import Batch

MULTIPLIERS = (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15)
"""SplitMix64's two, as signed 64-bit integers."""


def tickets(batch: Batch) -> Tensor:
    """Uniform in [0, 1), [N, T], float64."""
    return _drawn(batch, torch.arange(1, batch.token_NT.shape[1] + 1, device=batch.token_NT.device))


def row_tickets(batch: Batch) -> Tensor:
    """Uniform in [0, 1), one per rollout, [N], float64."""
    return _drawn(batch, torch.zeros(1, dtype=torch.long, device=batch.token_NT.device)).squeeze(1)


def _drawn(batch: Batch, place_T: Tensor) -> Tensor:
    seeds = [zlib.crc32("/".join(map(str, (*m.name, batch.version))).encode()) for m in batch.members]
    x_NT = torch.tensor(seeds, dtype=torch.long, device=place_T.device).view(-1, 1) << 32
    return _shifted(_mixed(x_NT + place_T), 11).double() / 2**53


def _mixed(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 30)) * MULTIPLIERS[0]
    x = (x ^ _shifted(x, 27)) * MULTIPLIERS[1]
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right of a signed tensor."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
