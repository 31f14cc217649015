"""The key-value cache of running rows: one padded buffer per layer, written in place.

A row lives in a slot; token t of a row lies at position t of its slot, so rows of any length stand side by side and a
new row can join at any step. What lies behind a row's last token is garbage that the mask hides and later tokens
overwrite. Running rows fill slots 0 .. N-1.

Two modes, switched by the decoder before each forward:

- prefill: contexts of several rows, padded on the right; one forward may fill many slots when rows share a context
  (the rollouts of one prompt do).
- decode: one token for each of the first N slots.

Axes of a buffer: S slots, H key-value heads, T positions, D head size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotPlan:
    """Where the forward that is about to run writes, shared by all layers."""

    def __init__(self) -> None:
        self.prefill = True
        self.slot_R: Tensor | None = None
        """Slots that a prefill fills."""
        self.source_R: Tensor | None = None
        """For each of them, the row of the prefill batch that it takes."""
        self.position_N: Tensor | None = None
        """For a decode step: the position of the token of slots 0 .. N-1."""
        self.width = 0
        """Positions that a decode step looks at."""


class SlotLayer(CacheLayerMixin):
    """One layer's buffers; the interface is transformers' own for cache layers."""

    is_sliding = False

    def __init__(self, plan: SlotPlan, slots: int, max_len: int) -> None:
        super().__init__()
        self.plan = plan
        self.slots = slots
        self.max_len = max_len

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for the shapes of the first keys and values seen."""
        self.keys = _buffer(key_states, self.slots, 32)
        self.values = _buffer(value_states, self.slots, 32)
        self.is_initialized = True

    def reserve(self, length: int) -> None:
        """Make room for `length` positions: doubles, so that short work stays in a small, warm buffer."""
        if not self.is_initialized or length <= self.keys.shape[2]:
            return
        size = min(max(length, 2 * self.keys.shape[2]), self.max_len)
        self.keys = _grown(self.keys, size)
        self.values = _grown(self.values, size)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write what the plan says; returns the keys and values that this forward attends to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        plan = self.plan
        if plan.prefill:
            self.reserve(key_states.shape[2])
            self.keys[plan.slot_R, :, : key_states.shape[2]] = key_states[plan.source_R]
            self.values[plan.slot_R, :, : value_states.shape[2]] = value_states[plan.source_R]
            return key_states, value_states
        self.reserve(plan.width)
        index_N11 = plan.position_N[:, None, None, None]
        rows = key_states.shape[0]
        _put(self.keys[:rows], index_N11, key_states)
        _put(self.values[:rows], index_N11, value_states)
        return self.keys[:rows, :, : plan.width], self.values[:rows, :, : plan.width]

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy slots over others, up to `length` positions."""
        if self.is_initialized:
            self.keys[target, :, :length] = self.keys[source, :, :length]
            self.values[target, :, :length] = self.values[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Asked only in a prefill, where rows begin at position 0."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """0: a prefill starts afresh, and a decode step brings its own positions and mask."""
        return 0

    def get_max_length(self) -> int:
        """Most positions of a slot."""
        return self.max_len


class SlotCache(Cache):
    """All layers, and the plan they share."""

    def __init__(self, layers: int, slots: int, max_len: int) -> None:
        self.plan = SlotPlan()
        super().__init__(layers=[SlotLayer(self.plan, slots, max_len) for _ in range(layers)])

    def move(self, source: list[int], target: list[int], length: int) -> None:
        """Copy slots over others in every layer."""
        for layer in self.layers:
            layer.move(torch.tensor(source), torch.tensor(target), length)


def _buffer(states: Tensor, slots: int, length: int) -> Tensor:
    return states.new_zeros((slots, states.shape[1], length, states.shape[3]))


def _grown(buffer: Tensor, length: int) -> Tensor:
    grown = buffer.new_zeros((buffer.shape[0], buffer.shape[1], length, buffer.shape[3]))
    grown[:, :, : buffer.shape[2]] = buffer
    return grown


def _put(buffer_NHTD: Tensor, index_N11: Tensor, states_NH1D: Tensor) -> None:
    buffer_NHTD.scatter_(2, index_N11.expand_as(states_NH1D), states_NH1D)
