"""Micro-batches: which rollouts go through the model together.

Rows are sorted by length so that little of a micro-batch is padding, and filled up to a budget of padded tokens.
The gradient does not depend on the cut: every denominator is of the whole step.
"""

from __future__ import annotations

from services.learning.batch import Batch


def plan(batch: Batch, budget: int, whole_groups: bool = False) -> list[list[int]]:
    """Rows of each micro-batch, ascending. A unit longer than `budget` padded tokens goes alone.

    `whole_groups` keeps groups together: for objectives that couple their members, or to read their context once.
    """
    longest, sequences = _costs(batch)
    units = _units(batch, whole_groups)
    units.sort(key=lambda unit: -max(longest[row] for row in unit))
    bins: list[list[int]] = []
    width = count = 0
    for unit in units:
        size = sum(sequences[row] for row in unit)
        if bins and (count + size) * width <= budget:
            bins[-1] += unit
            count += size
        else:
            bins.append(list(unit))
            width, count = max(longest[row] for row in unit), size
    return [sorted(rows) for rows in bins]


def _costs(batch: Batch) -> tuple[list[int], list[int]]:
    """Longest sequence and number of sequences of each row."""
    longest, sequences = [0] * len(batch), [0] * len(batch)
    for row, length in zip(batch.row_S.tolist(), batch.length_S.tolist(), strict=True):
        longest[row] = max(longest[row], length)
        sequences[row] += 1
    return longest, sequences


def _units(batch: Batch, whole_groups: bool) -> list[list[int]]:
    if not whole_groups:
        return [[row] for row in range(len(batch))]
    members: dict[int, list[int]] = {}
    for row, group in enumerate(batch.group_N.tolist()):
        members.setdefault(group, []).append(row)
    return list(members.values())
