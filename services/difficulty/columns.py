"""Columns that grow together, and what their rows held before they were changed.

Axes: P rows. Growing doubles the room; room that holds no row yet costs no memory (the system gives zero pages).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Column:
    """One column: its type, the shape of a row, what a new row holds, and whether it is kept at an undo."""

    dtype: type
    shape: tuple[int, ...] = ()
    fill: float = 0
    kept: bool = False


@dataclass(frozen=True)
class Before:
    """Some rows as they were."""

    rows_P: np.ndarray
    values: dict[str, np.ndarray]


class Columns:
    """Named arrays of one length. `columns[name]` is the array, with room behind its last row."""

    def __init__(self, declared: Mapping[str, Column]) -> None:
        self.declared = dict(declared)
        self.arrays = {name: np.zeros((64, *column.shape), column.dtype) for name, column in declared.items()}
        self.changed_P = np.zeros(64, bool)
        self.before: list[Before] = []
        self.size = 0

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def grow(self, size: int) -> None:
        """Have `size` rows; new ones hold their column's fill."""
        room = len(self.changed_P)
        if size > room:
            room = max(2 * room, size)
            self.arrays = {name: _longer(old, room) for name, old in self.arrays.items()}
            self.changed_P = _longer(self.changed_P, room)
        for name, column in self.declared.items():
            if column.fill:
                self.arrays[name][self.size : size] = column.fill
        self.size = max(size, self.size)

    def adopt(self, arrays: dict[str, np.ndarray]) -> None:
        """Hold these arrays, all of one length; a column that they lack holds its fill."""
        size = len(next(iter(arrays.values())))
        self.grow(size)
        for name, array in arrays.items():
            if name in self.declared:
                self.arrays[name][:size] = array

    def touch(self, rows_P: np.ndarray) -> np.ndarray:
        """Remember what these rows hold, if it is their first change since `clean`; returns those rows."""
        fresh_P = np.unique(rows_P[~self.changed_P[rows_P]])
        if len(fresh_P):
            self.changed_P[fresh_P] = True
            moving = (name for name, column in self.declared.items() if not column.kept)
            self.before.append(Before(fresh_P, {name: self.arrays[name][fresh_P] for name in moving}))
        return fresh_P

    def changed(self) -> np.ndarray:
        """Rows touched since `clean`."""
        return np.concatenate([each.rows_P for each in self.before] or [np.empty(0, np.int64)])

    def clean(self) -> list[Before]:
        """Forget which rows changed; returns what they held before."""
        before, self.before = self.before, []
        for each in before:
            self.changed_P[each.rows_P] = False
        return before

    def undo(self, before: list[Before]) -> None:
        """Make rows what they were, the oldest memory last."""
        for each in reversed(before):
            for name, values in each.values.items():
                self.arrays[name][each.rows_P] = values


def _longer(old: np.ndarray, size: int) -> np.ndarray:
    new = np.zeros((size, *old.shape[1:]), old.dtype)
    new[: len(old)] = old
    return new
