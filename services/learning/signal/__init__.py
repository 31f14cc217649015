"""What parts need besides log-probs; a signal part's file name is the signal's name.

`(batch, score) -> Tensor`, or a mapping of several. `score(which)` runs the "policy", or the copy of the model that the
part keeps, over the whole batch without a gradient and returns its `Forward`. Signals are made once per step, before
the advantage. A part may declare:

    reads   what its pass over the policy brings besides log-probs
    copy    the name of a copy of the model of its own; `follow(copy, model, steps)` moves it after every step
    head    `head(width) -> nn.Module`: a trainable head whose output on the hidden states is the signal; `rate` is its
            learning rate in multiples of the policy's
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from services.learning.batch import Batch
from services.learning.likelihood import Forward


class Score(Protocol):
    """A pass without a gradient, over every row of `batch`."""

    def __call__(self, which: str, batch: Batch | None = None, wanted: Collection[str] = ()) -> Forward:
        """`which`: "policy" or a copy's name. `batch`: another one than the step's, with its own `wanted`."""
        ...
