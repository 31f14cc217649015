"""Guidance: what is put into a context, which attempts go on, how hot tokens are drawn. One file, one way.

A part does one of three things, by the method it has:

    guide(request, history)           -> [Guidance]   texts for the context of all of a request's rollouts
    keep(tries, ended, history)       -> indices      which of a request's rollouts go on, once all that live have
                                                      `look_at` tokens; `ended` have ended before
    measured(entropy_K), temperatures(entropy_N, temperature_N, stats)
                                                      each token's temperature from the entropy it is drawn at, by
                                                      what was measured under the version before

`history` is the belief that the request carries: mean pass rate, evidence, step. Parts are pure but for what they read
when they are built. What `guide` says is context: it is never trained on, and the rollout names where its tokens lie.
Only training requests are guided. More rollouts than are trained (MC-GRPO's one for the median) are the budget's: its
recipe asks for n + 1 and drops the pivot.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from sluice.v1 import prompt_pb2


@dataclass(frozen=True, slots=True)
class Try:
    """The beginning of a rollout: its index, its tokens and their log-probs, and a number in (0, 1) that is its own."""

    index: int
    tokens: Sequence[int]
    logprobs: Sequence[float]
    draw: float


class Stats(NamedTuple):
    """log H of many tokens: where it is split, its spread, and the scales that take it to [-1, 1]."""

    pivot: float
    std: float
    above: float
    below: float


@runtime_checkable
class Guides(Protocol):
    """Puts texts into the context."""

    def guide(self, request: prompt_pb2.RolloutRequest, history: prompt_pb2.Belief) -> list[prompt_pb2.Guidance]:
        """In the order in which they are applied; none where the prompt needs none."""
        ...


@runtime_checkable
class Prunes(Protocol):
    """Ends rollouts before they are done."""

    look_at: int
    """Sampled tokens after which a rollout is looked at."""

    def keep(self, tries: Sequence[Try], ended: int, history: prompt_pb2.Belief) -> Collection[int]:
        """Indices of the tries that go on."""
        ...


@runtime_checkable
class Heats(Protocol):
    """Sets the temperature of every token."""

    def measured(self, entropy_K: np.ndarray) -> Stats:
        """What is kept of the entropies (nats) of K tokens."""
        ...

    def temperatures(self, entropy_N: np.ndarray, temperature_N: np.ndarray, stats: Stats) -> np.ndarray:
        """The temperature of each of N draws; `temperature_N` is what the request asks for."""
        ...
