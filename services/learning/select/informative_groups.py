"""Train only on groups whose members differ in accuracy (DAPO's dynamic sampling).

    keep group  iff  std(accuracy) > 0, or it has one member

Source: DAPO, arXiv:2503.14476; released filter `np.std(metric) > 0`. A group that is dropped gives its places back, so
that another prompt is asked for: the stream's form of sampling until the batch is full.
Odd case: a group of one is kept, as in the released code. Accuracy, not the shaped reward, decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pipeline.knobs import check, knob
from services.learning.batch import Batch
from services.learning.reduce import group_mean, group_range, group_size


@dataclass(frozen=True)
class InformativeGroups:
    """
    Accuracies [1, 1], [1, 0], [0, 0], [1]: dropped, kept, dropped, kept.

    >>> InformativeGroups().reason
    'degenerate_group'
    """

    low: float = knob(0.0, "groups with a mean accuracy at or below this go too (EasyR1: 0.01)", ge=0, le=1)
    high: float = knob(1.0, "groups with a mean accuracy at or above this go too (EasyR1: 0.99)", ge=0, le=1)

    __post_init__ = check

    reason: ClassVar[str] = "degenerate_group"

    def __call__(self, batch: Batch) -> Tensor:
        mean_N = group_mean(batch, batch.accuracy_N)
        mixed_N = (group_range(batch, batch.accuracy_N) > 0) & (mean_N > self.low) & (mean_N < self.high)
        return mixed_N | (group_size(batch) == 1)
