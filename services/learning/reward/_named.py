"""One reward of several, for parts that combine them."""

from __future__ import annotations

from torch import Tensor

from services.learning.advantage._group import named
from services.learning.batch import Batch


def component(batch: Batch, name: str, reward_N: Tensor) -> Tensor:
    """A raw reward by name, [N]; "reward" is the combined one so far. 0 where a verdict lacks it."""
    return (reward_N if name == "reward" else named(batch, name)).nan_to_num(nan=0.0)
