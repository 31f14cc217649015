"""Which player of a game speaks at each token, [N, T]; 0 on padding.

    player_t = the player number of the call that holds token t

Source: MARS normalises per player; the number is the call's, as recorded.
Odd case: a rollout without players is player 0's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from services.learning.batch import Batch
from services.learning.signal._calls import spread


@dataclass(frozen=True)
class Player:
    """
    >>> Player()
    Player()
    """

    def __call__(self, batch: Batch, score: Callable[..., object]) -> Tensor:
        return spread(batch, lambda call: call.place.player).long()
