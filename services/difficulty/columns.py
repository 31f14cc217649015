"""Columns of one length in one block of memory, and what their rows held before they were changed.

A row's values lie side by side (about 160 bytes, three lines of a processor's cache), because outcomes come for rows at
random: to read all of a row costs one wait for memory, not one for each column. `columns[name]` is a numpy view of one
column over all rows.

Axes: P rows, W 8-byte words of a row. Growing doubles the room; room that holds no row yet costs no memory (the system
gives zero pages).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Column:
    """One column: its type, the shape of a row, what a new row holds, and whether it is kept at an undo."""

    dtype: type
    shape: tuple[int, ...] = ()
    fill: float = 0
    kept: bool = False

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return int(np.dtype((self.dtype, self.shape)).itemsize)


@dataclass(frozen=True)
class Before:
    """Some rows as they were."""

    rows_P: np.ndarray
    words_PW: np.ndarray


class Columns:
    """Named columns. `columns[name]` is the array, with room behind its last row; growing makes new arrays.

    `used_P`: rows that were ever touched, written or adopted as used: they are found without a look at every row.
    """

    def __init__(self, declared: Mapping[str, Column]) -> None:
        self.declared = dict(declared)
        # Wide ones first: then every value lies where the processor wants it.
        names = sorted(declared, key=lambda name: -np.dtype(declared[name].dtype).itemsize)
        formats = [np.dtype((declared[name].dtype, declared[name].shape)) for name in names]
        ends = np.cumsum([declared[name].width for name in names]).tolist()
        layout = {"names": names, "formats": formats, "offsets": [0, *ends[:-1]], "itemsize": -(-ends[-1] // 8) * 8}
        self._row = np.dtype(layout)
        self.changed_P = self.used_P = np.zeros(0, bool)
        self.before: list[Before] = []
        self.size = 0
        self._hold(np.zeros((64, self._row.itemsize // 8), np.uint64))

    def _hold(self, words_PW: np.ndarray) -> None:
        """Give a longer block its names."""
        self.words_PW = words_PW
        rows_P = words_PW.view(self._row)[:, 0]
        self.arrays = {name: rows_P[name] for name in self.declared}
        more_P = np.zeros(len(words_PW) - len(self.changed_P), bool)
        self.changed_P, self.used_P = (np.concatenate([each, more_P]) for each in (self.changed_P, self.used_P))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def take(self, rows_P: np.ndarray) -> np.ndarray:
        """A copy of these rows, its fields by name: to be changed and put back."""
        return self.words_PW.take(rows_P, axis=0).view(self._row)[:, 0]

    def put(self, rows_P: np.ndarray, taken: np.ndarray) -> None:
        """Put back what was taken."""
        self.words_PW[rows_P] = taken.view(np.uint64).reshape(len(rows_P), -1)

    def grow(self, size: int) -> None:
        """Have `size` rows; new ones hold their column's fill."""
        room = len(self.words_PW)
        if size > room:
            longer_PW = np.zeros((max(2 * room, size), self.words_PW.shape[1]), np.uint64)
            longer_PW[: self.size] = self.words_PW[: self.size]
            self._hold(longer_PW)
        for name, column in self.declared.items():
            if column.fill:
                self.arrays[name][self.size : size] = column.fill
        self.size = max(size, self.size)

    def adopt(self, arrays: dict[str, np.ndarray], used: np.ndarray) -> None:
        """Hold these arrays, all of one length; a column that they lack holds its fill. `used`: which rows are."""
        size = len(next(iter(arrays.values())))
        self.grow(size)
        for name, array in arrays.items():
            if name in self.declared:
                self.arrays[name][:size] = array
        self.used_P[used] = True

    def write(self, row: int, values: Mapping[str, Any]) -> None:
        """Have a row hold these values, by name of the column."""
        for name, value in values.items():
            self.arrays[name][row] = value
        self.used_P[row] = True

    def touch(self, rows_P: np.ndarray) -> np.ndarray:
        """Remember what these rows hold, if it is their first change since `clean`; returns those rows."""
        self.used_P[rows_P] = True
        fresh_P = np.sort(rows_P[~self.changed_P[rows_P]])
        fresh_P = fresh_P[np.diff(fresh_P, prepend=-1) != 0]
        if len(fresh_P):
            self.changed_P[fresh_P] = True
            self.before.append(Before(fresh_P, self.words_PW.take(fresh_P, axis=0)))
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
            kept = {name: self.arrays[name][each.rows_P] for name, column in self.declared.items() if column.kept}
            self.words_PW[each.rows_P] = each.words_PW
            for name, values in kept.items():
                self.arrays[name][each.rows_P] = values


def rounds(rows_N: np.ndarray) -> Iterator[np.ndarray | slice]:
    """Which of N changes to apply at once: in each round a row comes once, and rounds keep the rows' order."""
    order = np.argsort(rows_N, kind="stable")
    starts = np.concatenate([[True], np.diff(rows_N[order]) != 0])
    if starts.all():
        yield slice(None)
        return
    place = np.arange(len(rows_N))
    rank = np.empty(len(rows_N), np.int64)
    rank[order] = place - np.maximum.accumulate(np.where(starts, place, 0))
    for number in range(int(rank.max()) + 1):
        yield np.flatnonzero(rank == number)
