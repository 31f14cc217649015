"""Prompt ids by row and rows by prompt id, for millions of prompts: a hash index over numpy arrays.

The ids lie one after the other in a byte arena. The table has a power of two of slots, at most half of them taken; a
slot holds a row, and the next slot is tried when it holds another's (linear probing). Python's own string hash decides
where to look, and the id itself is compared before a row is given out. Rows are never taken back.

About 32 bytes per prompt and the id: a dictionary needs 150 and the id.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

SMALLEST = 64


class Index(Mapping[str, int]):
    """Rows by prompt id, in the order of first sight."""

    def __init__(self) -> None:
        self._arena = bytearray()
        self._ends = np.zeros(SMALLEST, np.int64)
        self._hashes = np.zeros(SMALLEST, np.int64)
        self._slots = np.full(2 * SMALLEST, -1, np.int32)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        return (self.id_of(row) for row in range(self._size))

    def __reversed__(self) -> Iterator[str]:
        return (self.id_of(row) for row in reversed(range(self._size)))

    def __getitem__(self, prompt_id: str) -> int:
        row = self._find_one(prompt_id)
        if row < 0:
            raise KeyError(prompt_id)
        return row

    def __contains__(self, prompt_id: object) -> bool:
        return isinstance(prompt_id, str) and self._find_one(prompt_id) >= 0

    def id_of(self, row: int) -> str:
        """The prompt id of a row."""
        return self._bytes(row).decode()

    def _bytes(self, row: int) -> bytes:
        begin = int(self._ends[row - 1]) if row else 0
        return bytes(self._arena[begin : int(self._ends[row])])

    def find(self, prompt_ids: Sequence[str]) -> np.ndarray:
        """Rows of these ids; -1 where an id is unknown."""
        hashes_P = np.fromiter(map(hash, prompt_ids), np.int64, len(prompt_ids))
        rows_P = self._probe(hashes_P)
        for place in np.flatnonzero((rows_P >= 0) & ~self._are(rows_P, prompt_ids)).tolist():
            rows_P[place] = self._find_one(prompt_ids[place])
        return rows_P

    def _are(self, rows_P: np.ndarray, prompt_ids: Sequence[str]) -> np.ndarray:
        """Whether each row's id is this one: all bytes of all ids compared at once."""
        keys = [prompt_id.encode() for prompt_id in prompt_ids]
        width_P = np.fromiter(map(len, keys), np.int64, len(keys))
        begin_P = np.where(rows_P > 0, self._ends[rows_P - 1], 0)
        same_P = (rows_P >= 0) & (self._ends[rows_P] - begin_P == width_P)
        width_P = np.where(same_P, width_P, 0)
        ends_P = np.cumsum(width_P)
        wanted = np.frombuffer(b"".join(itertools.compress(keys, same_P.tolist())), np.uint8)
        place = np.arange(len(wanted)) + np.repeat(begin_P - ends_P + width_P, width_P)
        differs = np.frombuffer(self._arena, np.uint8)[place] != wanted
        if differs.any():
            same_P[np.repeat(np.arange(len(keys)), width_P)[differs]] = False
        return same_P

    def put(self, prompt_id: str) -> int:
        """The row of one id; an unknown one gets the next row."""
        row = self._find_one(prompt_id)
        return self._append(prompt_id) if row < 0 else row

    def add(self, prompt_ids: Sequence[str]) -> np.ndarray:
        """Rows of these ids; an unknown one gets the next row."""
        rows_P = self.find(prompt_ids)
        for place in np.flatnonzero(rows_P < 0).tolist():
            rows_P[place] = self.put(prompt_ids[place])
        return rows_P

    def sorted_rows(self, rows_P: np.ndarray) -> np.ndarray:
        """These rows in the order of their ids' bytes, which is the order of the ids."""
        arena = np.frombuffer(self._arena, np.uint8)
        ends_P = self._ends[rows_P]
        begins_P = np.where(rows_P > 0, self._ends[rows_P - 1], 0)
        width = int((ends_P - begins_P).max(initial=1))
        keys_PW = np.zeros((len(rows_P), width), np.uint8)
        for place in range(width):
            has_P = begins_P + place < ends_P
            keys_PW[has_P, place] = arena[begins_P[has_P] + place]
        return rows_P[np.argsort(keys_PW.view(f"S{width}").ravel(), kind="stable")]

    def dump(self) -> tuple[bytearray, np.ndarray]:
        """(arena, ends) of all ids: what `load` takes."""
        return self._arena, self._ends[: self._size]

    @classmethod
    def load(cls, arena: bytes, ends_P: np.ndarray) -> Index:
        """The index whose `dump` this is."""
        self = cls()
        self._arena, self._size = bytearray(arena), len(ends_P)
        self._ends = np.zeros(_capacity(len(ends_P)), np.int64)
        self._ends[: len(ends_P)] = ends_P
        ends = [0, *ends_P.tolist()]
        hashes = (hash(arena[begin:end].decode()) for begin, end in zip(ends, ends[1:], strict=False))
        self._hashes = np.zeros(len(self._ends), np.int64)
        self._hashes[: self._size] = np.fromiter(hashes, np.int64, self._size)
        self._rehash(2 * len(self._ends))
        return self

    def _find_one(self, prompt_id: str) -> int:
        wanted, key, mask = hash(prompt_id), prompt_id.encode(), len(self._slots) - 1
        slot = wanted & mask
        while (row := int(self._slots[slot])) >= 0:
            if self._hashes[row] == wanted and self._bytes(row) == key:
                return row
            slot = (slot + 1) & mask
        return -1

    def _probe(self, hashes_P: np.ndarray) -> np.ndarray:
        """The first row with each hash; -1 where an empty slot comes first."""
        mask = len(self._slots) - 1
        rows_P = np.full(len(hashes_P), -1, np.int64)
        slots_P, open_P = hashes_P & mask, np.arange(len(hashes_P))
        while len(open_P):
            row_P = self._slots[slots_P[open_P]]
            taken_P = row_P >= 0
            open_P, row_P = open_P[taken_P], row_P[taken_P]
            hit_P = self._hashes[row_P] == hashes_P[open_P]
            rows_P[open_P[hit_P]] = row_P[hit_P]
            open_P = open_P[~hit_P]
            slots_P[open_P] = (slots_P[open_P] + 1) & mask
        return rows_P

    def _append(self, prompt_id: str) -> int:
        row = self._size
        if row == len(self._ends):
            for name in ("_ends", "_hashes"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(row, np.int64)]))
            self._rehash(4 * row)
        self._arena += prompt_id.encode()
        self._ends[row], self._hashes[row] = len(self._arena), hash(prompt_id)
        mask = len(self._slots) - 1
        slot = hash(prompt_id) & mask
        while self._slots[slot] >= 0:
            slot = (slot + 1) & mask
        self._slots[slot] = row
        self._size += 1
        return row

    def _rehash(self, slots: int) -> None:
        """Place every row again, all at once: of those that want one slot the last written stays, the others go on."""
        self._slots = np.full(slots, -1, np.int32)
        open_P = np.arange(self._size, dtype=np.int32)
        slots_P = self._hashes[: self._size] & (slots - 1)
        while len(open_P):
            free_P = self._slots[slots_P] < 0
            self._slots[slots_P[free_P]] = open_P[free_P]
            left_P = self._slots[slots_P] != open_P
            open_P, slots_P = open_P[left_P], (slots_P[left_P] + 1) & (slots - 1)


def _capacity(size: int) -> int:
    return max(SMALLEST, 1 << max(size - 1, 1).bit_length())
