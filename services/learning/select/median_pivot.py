"""Leave out the rollout that is its group's median, the baseline of the others (MC-GRPO's pivot).

    drop i  iff  i is the lower median of its group's rewards, by the first tokens' log-prob among equals

Source: MC-GRPO and its released code: of G + 1 rollouts exactly G are trained. It acts after the advantage, so the
median is still in every statistic.
Odd case: a group of one is kept; its advantage is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from services.learning.advantage._group import group_median
from services.learning.batch import Batch
from services.learning.reduce import group_size


@dataclass(frozen=True)
class MedianPivot:
    """
    Rewards [.1, .4, .5, .9, 1]: the third is left out.

    >>> MedianPivot().reason
    'pivot'
    """

    reason: ClassVar[str] = "pivot"
    needs: ClassVar[frozenset[str]] = frozenset({"advantage"})

    def __call__(self, batch: Batch) -> Tensor:
        return ~group_median(batch, batch.reward_N)[1] | (group_size(batch) == 1)
