"""The prompts' messages, on disk: a file of one prompt after the other, and where each lies.

A request needs a prompt's messages when it is issued and never before, so they cost no memory. Answers, tests, hints
and solutions are not kept at all. The file is a cache of the `prompts` topic: it is named by the snapshot that covers
it, and made anew without one.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from services.difficulty.index import Index
from sluice.v1 import prompt_pb2

SECRET = ("check", "reference_solution", "hints")
"""Fields of a prompt that the difficulty service does not keep."""


class Texts(Mapping[str, prompt_pb2.Prompt]):
    """Registered prompts by id, without their answers. `index` is shared with the store; its rows are used here."""

    def __init__(self, index: Index, path: Path | None = None) -> None:
        self.index = index
        # What an older process wrote stays until it is written over: a snapshot may still name it.
        mode = "r+b" if path and path.exists() else "w+b"
        self._file = open(path, mode) if path else tempfile.TemporaryFile()  # noqa: SIM115 (held as long as this is)
        self._end = 0
        self.at_P, self.size_P = np.zeros(64, np.int64), np.zeros(64, np.int32)
        self.count = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        return (self.index.id_of(int(row)) for row in self.rows())

    def __contains__(self, prompt_id: object) -> bool:
        return isinstance(prompt_id, str) and self._has(self.index.get(prompt_id, -1))

    def __getitem__(self, prompt_id: str) -> prompt_pb2.Prompt:
        row = self.index[prompt_id]
        if not self._has(row):
            raise KeyError(prompt_id)
        return self.at(row)

    def _has(self, row: int) -> bool:
        return 0 <= row < len(self.size_P) and self.size_P[row] > 0

    def has(self, rows_N: np.ndarray) -> np.ndarray:
        """Whether each row is of a registered prompt; -1 is of none."""
        inside_N = (rows_N >= 0) & (rows_N < len(self.size_P))
        return inside_N & (self.size_P[np.where(inside_N, rows_N, 0)] > 0)

    def rows(self) -> np.ndarray:
        """Rows of the registered prompts, rising."""
        return np.flatnonzero(self.size_P)

    def at(self, row: int) -> prompt_pb2.Prompt:
        """The prompt of a row that is registered."""
        self._file.flush()
        found = os.pread(self._file.fileno(), int(self.size_P[row]), int(self.at_P[row]))
        return prompt_pb2.Prompt.FromString(found)

    def add(self, prompt: prompt_pb2.Prompt) -> bool:
        """Keep a prompt; False when another one is known under its id."""
        row = self.index.put(prompt.prompt_id)
        if self._has(row):
            return self.at(row).digest == prompt.digest
        kept = prompt_pb2.Prompt()
        kept.CopyFrom(prompt)
        for name in SECRET:
            kept.ClearField(name)
        text = kept.SerializeToString()
        if row >= len(self.size_P):
            more = max(row + 1 - len(self.size_P), len(self.size_P))
            self.at_P = np.concatenate([self.at_P, np.zeros(more, np.int64)])
            self.size_P = np.concatenate([self.size_P, np.zeros(more, np.int32)])
        self.at_P[row], self.size_P[row] = self._end, len(text)
        self._file.write(text)
        self._end += len(text)
        self.count += 1
        return True

    def sync(self) -> int:
        """Make what was added durable; returns the file's length."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._end

    @classmethod
    def load(cls, index: Index, path: Path, end: int, at_P: np.ndarray, size_P: np.ndarray) -> Texts:
        """The texts that a snapshot covers; what was written after it is cut off."""
        self = cls.__new__(cls)
        self.index, self._end, self.at_P, self.size_P = index, end, at_P, size_P
        self._file = open(path, "r+b")  # noqa: SIM115 (held as long as this is)
        self._file.truncate(end)
        self._file.seek(end)
        self.count = int(np.count_nonzero(size_P))
        return self

    def close(self) -> None:
        """Let the file go."""
        self._file.close()
