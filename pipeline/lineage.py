"""Which steps stand. A restart opens an epoch with a rewind; what older epochs did after the rewind's step is void.

    epoch 1   1 2 3 4 5 6 7          killed; the newest checkpoint was of step 5
    epoch 2             5 | 6 7 8    Rewind(epoch=2, to_step=5): steps 6 and 7 of epoch 1 are void

The same rule holds for everything stamped (epoch, step): steps, drops, outcomes and checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sluice.v1 import training_pb2


@dataclass(frozen=True)
class Lineage:
    """The rewinds of a run: epoch -> the step that it went back to.

    >>> run = Lineage({1: 0, 2: 5})
    >>> run.stands(1, 5), run.stands(1, 6), run.stands(2, 6)
    (True, False, True)
    """

    rewinds: dict[int, int]

    @classmethod
    def of(cls, rewinds: Iterable[training_pb2.Rewind]) -> Lineage:
        """From the records of the `steps` topic."""
        return cls({rewind.epoch: rewind.to_step for rewind in rewinds})

    def stands(self, epoch: int, step: int) -> bool:
        """Did no later epoch go back to before this step?"""
        return all(to_step >= step for later, to_step in self.rewinds.items() if later > epoch)
