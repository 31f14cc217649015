"""Prompt ids by row and rows by prompt id, for millions of prompts: a hash index over numpy arrays.

The ids lie one after the other in a byte arena. The table has a power of two of slots, at most half of them taken; a
slot holds a row and the upper 33 bits of its id's hash, and the next slot is tried when it holds another's (linear
probing). Python's own string hash decides where to look, and the id itself is compared before a row is given out. Rows
are never taken back. Of many ids the first slots are looked at together: neighbours lie in one line of a processor's
cache, and a line per id is all that a look costs.

About 32 bytes per prompt and the id: a dictionary needs 150 and the id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

SMALLEST = 64
BITS = 31
"""Of a slot: the lower ones hold row + 1, the others the hash's. A slot of 0 is empty."""
ROW = (1 << BITS) - 1
LOOKED = 8
"""Slots that are looked at together: one cache line."""


class Index(Mapping[str, int]):
    """Rows by prompt id, in the order of first sight."""

    def __init__(self) -> None:
        self._arena = bytearray()
        self._ends = np.zeros(SMALLEST, np.int64)
        self._slots = np.zeros(2 * SMALLEST, np.int64)
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
        rows_P, open_P = self._look(hashes_P)
        for place in np.flatnonzero(open_P | (rows_P >= 0) & ~self._are(rows_P, prompt_ids)).tolist():
            rows_P[place] = self._find_one(prompt_ids[place])
        return rows_P

    def _look(self, hashes_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the first row with each hash, -1 where there is none; whether it may lie behind the slots looked at)."""
        tags_P1 = (hashes_P & ~ROW)[:, None]
        entries_PL = self._slots[((tags_P1 >> BITS) + np.arange(LOOKED)) & (len(self._slots) - 1)]
        # An empty slot ends the search: it never lies before the row's own.
        hits_PL = entries_PL & ~ROW == tags_P1
        places, first_P = np.arange(len(hashes_P)), hits_PL.argmax(axis=1)
        found_P = hits_PL[places, first_P]
        rows_P = np.where(found_P, (entries_PL[places, first_P] & ROW) - 1, -1)
        return rows_P, ~found_P & (entries_PL != 0).all(axis=1)

    def _are(self, rows_P: np.ndarray, prompt_ids: Sequence[str]) -> np.ndarray:
        """Whether each row's id is this one: ids of one length are compared at once."""
        keys = [prompt_id.encode() for prompt_id in prompt_ids]
        width_P = np.fromiter(map(len, keys), np.int64, len(keys))
        begin_P = np.where(rows_P > 0, self._ends[rows_P - 1], 0)
        same_P = (rows_P >= 0) & (self._ends[rows_P] - begin_P == width_P)
        for width in set(width_P[same_P].tolist()) - {0}:
            places = np.flatnonzero(same_P & (width_P == width))
            wanted = b"".join([keys[place] for place in places.tolist()])
            known = np.ndarray((len(self._arena) - width + 1,), f"V{width}", self._arena, 0, (1,))[begin_P[places]]
            if known.tobytes() != wanted:
                differ = known.view(np.uint8) != np.frombuffer(wanted, np.uint8)
                same_P[places] = ~differ.reshape(-1, width).any(axis=1)
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
        hashes_P = np.fromiter(hashes, np.int64, self._size)
        self._place((hashes_P & ~ROW) + np.arange(1, self._size + 1), 2 * len(self._ends))
        return self

    def _find_one(self, prompt_id: str) -> int:
        wanted, key, mask = hash(prompt_id) & ~ROW, prompt_id.encode(), len(self._slots) - 1
        slot = (wanted >> BITS) & mask
        while entry := int(self._slots[slot]):
            row = (entry & ROW) - 1
            if entry & ~ROW == wanted and self._bytes(row) == key:
                return row
            slot = (slot + 1) & mask
        return -1

    def _append(self, prompt_id: str) -> int:
        row = self._size
        if row == len(self._ends):
            self._ends = np.concatenate([self._ends, np.zeros(row, np.int64)])
            self._place(self._slots[self._slots != 0], 4 * row)
        self._arena += prompt_id.encode()
        self._ends[row] = len(self._arena)
        tag, mask = hash(prompt_id) & ~ROW, len(self._slots) - 1
        slot = (tag >> BITS) & mask
        while self._slots[slot]:
            slot = (slot + 1) & mask
        self._slots[slot] = tag | (row + 1)
        self._size += 1
        return row

    def _place(self, entries_P: np.ndarray, slots: int) -> None:
        """A table of these entries, all at once: of those that want one slot the last written stays, others go on."""
        self._slots = np.zeros(slots, np.int64)
        slots_P = (entries_P >> BITS) & (slots - 1)
        while len(entries_P):
            free_P = self._slots[slots_P] == 0
            self._slots[slots_P[free_P]] = entries_P[free_P]
            left_P = self._slots[slots_P] != entries_P
            entries_P, slots_P = entries_P[left_P], (slots_P[left_P] + 1) & (slots - 1)


def _capacity(size: int) -> int:
    return max(SMALLEST, 1 << max(size - 1, 1).bit_length())
