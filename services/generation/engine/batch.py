"""The rows that are being sampled: plain arrays, one entry per slot, and the rules by which a row ends.

Rows fill slots 0 .. n-1. A row that ended leaves a hole; a new row takes a hole, or `compact` moves the last rows into
what is left. Nothing here computes with a model.

Axes: S slots, T positions of a slot (context, then what was sampled).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.generation.engine.api import Job, Partial
from services.generation.engine.sampler import mix
from services.generation.engine.stops import StopScan
from sluice.v1 import rollout_pb2


@dataclass(slots=True)
class Row:
    """What a row carries besides its arrays. Times are seconds of `time.monotonic()`."""

    job: Job
    submitted_s: float
    spans: list[tuple[int, int]] = field(default_factory=list)
    first_s: float = 0.0
    stops: StopScan | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A row that ended, before its text is decoded."""

    row: Row
    tokens: list[int]
    logprobs: list[float]
    ending: rollout_pb2.Ending
    ended_s: float
    reason: str = ""
    temperatures: list[float] = field(default_factory=list)


class Batch:
    """Rows 0 .. n-1 and what is known of each. `n` counts holes until `compact`.

    `heated`: the temperature of every token is kept, because it may not be the one asked for.
    """

    def __init__(self, slots: int, max_len: int, vocab: int, eos: Sequence[int], heated: bool = False) -> None:
        self.slots, self.max_len, self.n = slots, max_len, 0
        self.rows: list[Row | None] = [None] * slots
        self.holes: list[int] = []
        self.is_eos_V = np.zeros(vocab, dtype=bool)
        self.is_eos_V[list(eos)] = True
        self.tokens_ST = np.zeros((slots, max_len), dtype=np.int64)
        self.logprobs_ST = np.zeros((slots, max_len), dtype=np.float32)
        self.heat_ST = np.zeros((slots, max_len), dtype=np.float32) if heated else None
        self.length_S = np.zeros(slots, dtype=np.int64)
        self.start_S = np.zeros(slots, dtype=np.int64)
        self.limit_S = np.zeros(slots, dtype=np.int64)
        self.seed_S = np.zeros(slots, dtype=np.uint64)
        self.temperature_S = np.zeros(slots, dtype=np.float32)
        self.top_k_S = np.zeros(slots, dtype=np.int64)
        self.top_p_S = np.ones(slots, dtype=np.float32)
        self.min_p_S = np.zeros(slots, dtype=np.float32)
        self.min_tokens_S = np.zeros(slots, dtype=np.int64)
        self.deadline_S = np.zeros(slots, dtype=np.int64)
        self.special_S = np.zeros(slots, dtype=bool)
        self.scans_S = np.zeros(slots, dtype=bool)
        self.trains_S = np.zeros(slots, dtype=bool)
        self.look_S = np.zeros(slots, dtype=np.int64)

    @property
    def live(self) -> int:
        """Rows that are being sampled."""
        return self.n - len(self.holes)

    @property
    def free(self) -> int:
        """Rows that could join."""
        return self.slots - self.live

    @property
    def held(self) -> int:
        """Tokens of all rows, contexts included."""
        return int(self.length_S[: self.n].sum())

    def place(self, row: Row, version: int) -> int:
        """Put a row into a slot; returns the slot. `version`: the weights that its first token will be sampled with."""
        slot = self.holes.pop() if self.holes else self.n
        self.n = max(self.n, slot + 1)
        self.rows[slot] = row
        row.spans = [(0, version)]
        job, sampling, context = row.job, row.job.sampling, len(row.job.tokens)
        self.tokens_ST[slot, :context] = job.tokens
        self.length_S[slot] = self.start_S[slot] = context
        self.limit_S[slot] = min(context + sampling.max_tokens, self.max_len)
        self.seed_S[slot] = mix(np.array([job.seed & (2**64 - 1)], dtype=np.uint64))[0]
        self.temperature_S[slot] = sampling.temperature
        self.top_k_S[slot], self.min_p_S[slot] = sampling.top_k, sampling.min_p
        self.top_p_S[slot] = sampling.top_p or 1.0
        self.min_tokens_S[slot] = sampling.min_tokens
        self.deadline_S[slot] = job.deadline_ms or np.iinfo(np.int64).max
        restricted = sampling.top_k > 0 or 0 < sampling.top_p < 1 or sampling.min_p > 0
        self.special_S[slot] = restricted or sampling.min_tokens > 0
        self.scans_S[slot] = row.stops is not None
        self.trains_S[slot] = job.train
        self.look_S[slot] = context + job.look_at if job.look_at else 0
        return slot

    def record(
        self, token_N: np.ndarray, logprob_N: np.ndarray, temperature_N: np.ndarray, now_s: float
    ) -> dict[int, rollout_pb2.Ending]:
        """Append one token to every row; returns the slots that thereby ended, and how. There must be no holes."""
        n = self.n
        every_N, length_N = np.arange(n), self.length_S[:n]
        first_N = length_N == self.start_S[:n]
        for slot in np.flatnonzero(first_N):
            self._row(slot).first_s = now_s
        self.tokens_ST[every_N, length_N] = token_N
        self.logprobs_ST[every_N, length_N] = logprob_N
        if self.heat_ST is not None:
            self.heat_ST[every_N, length_N] = temperature_N
        self.length_S[:n] += 1
        stop_N = self.is_eos_V[token_N]
        for slot in np.flatnonzero(self.scans_S[:n] & ~stop_N):
            stop_N[slot] = self._scan(slot, int(token_N[slot]))
        full_N = self.length_S[:n] >= self.limit_S[:n]
        return {
            int(slot): rollout_pb2.ENDING_STOP if stop_N[slot] else rollout_pb2.ENDING_LENGTH
            for slot in np.flatnonzero(stop_N | full_N)
        }

    def shown(self) -> list[Partial]:
        """Beginnings of the rows that have just come to where they are looked at."""
        n = self.n
        slots = np.flatnonzero(self.look_S[:n] == self.length_S[:n])
        return [Partial(self._row(slot).job.id, *self._said(slot)) for slot in slots if self.rows[slot] is not None]

    def late(self, now_ms: int) -> list[int]:
        """Slots whose deadline has passed."""
        return [int(slot) for slot in np.flatnonzero(self.deadline_S[: self.n] < now_ms) if self.rows[slot]]

    def remove(self, slot: int, ending: rollout_pb2.Ending, ended_s: float, reason: str = "") -> Ended:
        """Take a row out; its slot becomes a hole."""
        row = self._row(slot)
        start, length = self.start_S[slot], self.length_S[slot]
        self.rows[slot] = None
        self.holes.append(slot)
        tokens, logprobs = self._said(slot)
        if not tokens:
            row.spans = []
        heat = [] if self.heat_ST is None else self.heat_ST[slot, start:length].tolist()
        return Ended(row, tokens, logprobs, ending, ended_s, reason, heat)

    def stamp(self, version: int) -> None:
        """From the next token on, every row is sampled by `version`."""
        for slot, row in enumerate(self.rows[: self.n]):
            if row is None:
                continue
            sampled = int(self.length_S[slot] - self.start_S[slot])
            if row.spans[-1][0] == sampled:
                row.spans.pop()
            row.spans.append((sampled, version))

    def compact(self) -> tuple[list[int], list[int]]:
        """Close the holes. Returns (slots to copy from, slots to copy to) for what else is kept by slot."""
        holes = set(self.holes)
        self.holes = []
        live = self.n - len(holes)
        targets = sorted(slot for slot in holes if slot < live)
        sources = [slot for slot in range(live, self.n) if slot not in holes]
        if targets:
            self._copy(sources, targets)
        self.n = live
        return sources, targets

    def context(self, slot: int, upto: int) -> tuple[int, ...]:
        """The first `upto` tokens of a slot."""
        return tuple(self.tokens_ST[slot, :upto].tolist())

    def _row(self, slot: int) -> Row:
        row = self.rows[slot]
        assert row is not None
        return row

    def _said(self, slot: int) -> tuple[list[int], list[float]]:
        start, length = self.start_S[slot], self.length_S[slot]
        return self.tokens_ST[slot, start:length].tolist(), self.logprobs_ST[slot, start:length].tolist()

    def _scan(self, slot: int, token: int) -> bool:
        scan = self._row(slot).stops
        assert scan is not None
        sampled = int(self.length_S[slot] - self.start_S[slot])
        return scan.feed(token, armed=sampled >= self.min_tokens_S[slot])

    def _copy(self, sources: list[int], targets: list[int]) -> None:
        width = int(self.length_S[sources].max())
        self.tokens_ST[targets, :width] = self.tokens_ST[sources, :width]
        self.logprobs_ST[targets, :width] = self.logprobs_ST[sources, :width]
        if self.heat_ST is not None:
            self.heat_ST[targets, :width] = self.heat_ST[sources, :width]
        for array in (
            self.length_S,
            self.start_S,
            self.limit_S,
            self.seed_S,
            self.temperature_S,
            self.top_k_S,
            self.top_p_S,
            self.min_p_S,
            self.min_tokens_S,
            self.deadline_S,
            self.special_S,
            self.scans_S,
            self.trains_S,
            self.look_S,
        ):
            array[targets] = array[sources]
        for source, target in zip(sources, targets, strict=True):
            self.rows[target], self.rows[source] = self.rows[source], None
