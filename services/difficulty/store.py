"""Per-prompt statistics in columns, addressed by prompt id through a hash index; they grow while the run goes on.

Event-sourced: whole-state records (`PosteriorState`) bring a prompt back bit for bit, and applying the same verdicts
and steps in the same order gives the same bits, whether they come one by one or in batches: a batch is applied in
rounds in which every prompt has at most one outcome, and a round is arithmetic on columns.

A prompt costs about 180 bytes and its id: a million with ids of 32 characters take about 220 MB, and more than as much
again while a snapshot is written. Messages lie on disk (`texts.py`), what a rewind may take back in journals
(`journal.py`).

Axes: P rows, K statistics, R recent outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.evidence import movements
from pipeline.gate import Gate
from services.difficulty import journal as journals_of
from services.difficulty import seen, turns
from services.difficulty.columns import Before, Column, Columns, rounds
from services.difficulty.index import Index
from services.difficulty.journal import MOVED, Journal, fold
from services.difficulty.state import Estimate, Stat, name_of, written_by
from services.difficulty.view import RECENT, View
from sluice.v1 import posterior_pb2, rollout_pb2, training_pb2

MAX_PENDING = 4096
"""Changes that a prompt's journal holds; what is pushed out at the front is settled early."""
SCALARS = {"last_version": np.int64, "last_step": np.int64, "tally": float, "turns": np.int32, "turn_mean": float,
           "turn_squares": float, "turn_sum": float, "turn_outcomes": np.int32}  # fmt: skip
"""Columns that are one field of a record each."""


@dataclass(frozen=True, slots=True)
class Row:
    """Everything known of one prompt, its turns left out."""

    stat: Stat
    visits: int = 0
    last_version: int = 0
    recent: tuple[float, ...] = ()
    journal: Journal | None = None


Past = tuple[list[Before], dict[int, tuple[Journal, int] | None]]
"""Rows as they were, and their journals with how many changes they had."""


@dataclass
class Store:
    """The statistics of all prompts under one estimate. `step` and `version` are the learner's, as last heard.

    `batch`: outcomes that make a turn while no learner has spoken.
    """

    estimate: Estimate
    batch: int = 1
    learner: bool = False
    """Whether one has spoken: a step, or a rewind."""
    step: int = 0
    version: int = 0
    checkpoint_step: int = 0
    rows: Index = field(default_factory=Index)
    journals: dict[int, Journal] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    outcomes: int = 0
    """Outcomes applied so far, all prompts together."""
    foreign: set[int] = field(default_factory=set)
    """Rows whose newest record another estimate wrote, or other knobs: their statistics were not taken over."""
    foreign_writer: str = ""
    """What wrote the last of those."""

    def __post_init__(self) -> None:
        self.writer = written_by(self.estimate)
        declared = {name: Column(dtype) for name, dtype in SCALARS.items()}
        declared |= {"values": Column(float, (len(self.estimate.columns),)), "recent": Column(float, (RECENT,))}
        declared |= {"decayed": Column(np.int64), "visits": Column(np.int32), "domain": Column(np.int32, kept=True)}
        declared |= {"diversity": Column(float, fill=math.nan)}
        self.columns = Columns(declared)
        self._journals_before: dict[int, tuple[Journal, int] | None] = {}
        self._initial_K = np.array(self.estimate.initial().values)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dirty(self) -> list[str]:
        """Prompts changed since `clean`."""
        return [self.rows.id_of(row) for row in self.columns.changed().tolist()]

    def add(self, prompt_id: str) -> int:
        """The row of a prompt; a new one holds the prior."""
        row = self.rows.put(prompt_id)
        self._grow()
        return row

    def put_domain(self, prompt_id: str, domain: str) -> None:
        """Which domain a prompt is of."""
        row = self.add(prompt_id)
        self.columns["domain"][row] = self.domains.setdefault(domain, len(self.domains))

    def _rows(self, prompt_ids: Sequence[str]) -> np.ndarray:
        rows_P = self.rows.add(prompt_ids)
        self._grow()
        return rows_P

    def _grow(self) -> None:
        known = self.columns.size
        if len(self.rows) > known:
            self.columns.grow(len(self.rows))
            self.columns["values"][known : len(self.rows)] = self._initial_K

    # Inputs.

    def apply_verdict(self, verdict: rollout_pb2.Verdict) -> bool:
        """Count an outcome; False when the posterior must not see it."""
        return self.apply_verdicts([verdict]) == [""]

    def apply_verdicts(
        self,
        verdicts: Sequence[rollout_pb2.Verdict],
        versions: seen.Versions | None = None,
        registered: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> list[str]:
        """Count outcomes in this order; returns for each why the posterior must not see it, empty when it was.

        `registered`: which rows are of prompts to train on, -1 being an unknown id; None makes every id one.
        """
        if not verdicts:
            return []
        told = seen.read(verdicts, versions)
        rows_N = self._rows(told.prompt_ids) if registered is None else self.rows.find(told.prompt_ids)
        for place in np.flatnonzero(~registered(rows_N)).tolist() if registered is not None else ():
            told.reasons[place] = told.reasons[place] or seen.UNKNOWN
        if any(told.reasons):
            kept = [verdict for verdict, reason in zip(verdicts, told.reasons, strict=True) if not reason]
            self.apply_verdicts(kept, registered=registered)
            return told.reasons
        lag_N = np.maximum(self._newest(told.highest_N) - told.lowest_N, 0)
        self.observe(rows_N, told.accuracy_N, lag_N, told.highest_N)
        for place in told.rewarded:
            for value in seen.diversities(verdicts[place]):
                self.columns["diversity"][rows_N[place]] = value
        return told.reasons

    @property
    def turn(self) -> int:
        """The step that turns, rests and curricula go by: without a learner, how often outcomes have filled a batch."""
        return self.step if self.learner else self.outcomes // self.batch

    def _turns(self, count: int) -> np.ndarray:
        """The turn of each of the next outcomes."""
        return np.full(count, self.step) if self.learner else (self.outcomes + np.arange(count)) // self.batch

    def _newest(self, highest_N: np.ndarray) -> np.ndarray:
        """The newest version known at each of these outcomes: without a learner, the newest one observed."""
        if self.learner:
            return np.full(len(highest_N), self.version)
        newest_N = np.maximum.accumulate(np.maximum(highest_N, self.version))
        self.version = int(newest_N[-1])
        return newest_N

    def observe(self, rows_N: np.ndarray, accuracy_N: np.ndarray, lag_N: np.ndarray, version_N: np.ndarray) -> None:
        """Count N outcomes of known rows, in this order."""
        self.touch(rows_N)
        turn_N = self._turns(len(rows_N))
        self.outcomes += len(rows_N)
        if self.step > self.checkpoint_step:
            self._write_down(rows_N, accuracy_N, lag_N)
        for pick in rounds(rows_N):
            rows, accuracy = rows_N[pick], accuracy_N[pick]
            taken = self.columns.take(rows)
            decayed, steps = taken["decayed"], np.full(len(rows), self.step)
            taken["values"] = self.estimate.observe(taken["values"], decayed, accuracy, lag_N[pick], steps)
            taken["decayed"] = np.maximum(decayed, steps)
            taken["last_version"] = np.maximum(taken["last_version"], version_N[pick])
            taken["recent"][:, :-1] = taken["recent"][:, 1:]
            taken["recent"][:, -1] = accuracy
            turns.count(taken, accuracy, turn_N[pick])
            taken["visits"] += 1
            self.columns.put(rows, taken)

    def apply_step(self, step: training_pb2.TrainStep) -> int:
        """Apply an optimiser step: the movements it measured, and what its newest checkpoint settles.

        Returns how many movements were left out, being no distance.
        """
        self._hear()
        self.step, self.version = step.step, max(self.version, step.version)
        if moved := movements(step):
            rows_N = self._rows([prompt_id for prompt_id, _ in moved])
            self._move(rows_N, np.array([nats for _, nats in moved]))
        self.settle(step.checkpoint_step)
        return len(step.shifts) - len(moved)

    def _hear(self) -> None:
        """A learner speaks: from its first word on its steps and versions count, and what came before was step 0."""
        if not self.learner:
            self.learner, self.version = True, 0
            self._tried_by(0)

    def _tried_by(self, step: int) -> None:
        """No prompt was tried later than that."""
        late_P = np.flatnonzero(self.columns["last_step"][: len(self)] > step)
        self.touch(late_P)
        self.columns["last_step"][late_P] = step

    def _move(self, rows_N: np.ndarray, change_N: np.ndarray) -> None:
        columns = self.columns
        if self.estimate.moved(columns["values"][rows_N[:1]], change_N[:1]) is None:
            return
        self.touch(rows_N)
        if self.step > self.checkpoint_step:
            self._write_down(rows_N, change_N, np.full(len(rows_N), MOVED))
        for pick in rounds(rows_N):
            rows = rows_N[pick]
            columns["values"][rows] = self.estimate.moved(columns["values"][rows], change_N[pick])
            columns["decayed"][rows] = np.maximum(columns["decayed"][rows], self.step)

    # What may be taken back.

    def touch(self, rows_N: np.ndarray) -> None:
        """Have these prompts written anew, and remember what is known of them now."""
        fresh = self.columns.touch(rows_N).tolist()
        if not self.journals:
            self._journals_before.update(dict.fromkeys(fresh))
            return
        known_F = map(self.journals.get, fresh)
        told = [(known, len(known.changes)) if known else None for known in known_F]
        self._journals_before.update(zip(fresh, told, strict=True))

    def _stat(self, row: int) -> Stat:
        return Stat(tuple(self.columns["values"][row].tolist()), int(self.columns["decayed"][row]))

    def _write_down(self, rows_N: np.ndarray, value_N: np.ndarray, lag_N: np.ndarray) -> None:
        journals, step, rows = self.journals, self.step, rows_N.tolist()
        if fresh := [row for row in dict.fromkeys(rows) if row not in journals]:
            values_FK, decayed_F = self.columns["values"][fresh], self.columns["decayed"][fresh]
            for row, values, decayed in zip(fresh, values_FK.tolist(), decayed_F.tolist(), strict=True):
                journals[row] = Journal(Stat(tuple(values), decayed))
        for row, value, lag in zip(rows, value_N.tolist(), lag_N.tolist(), strict=True):
            known = journals[row]
            known.changes.append((step, value, lag))
            if len(known.changes) > MAX_PENDING:
                (base,) = fold(self.estimate, [known.base], [known.changes[:1]])
                journals[row] = Journal(base, known.changes[1:])

    def settle(self, checkpoint_step: int) -> None:
        """What was applied at or before this step can no longer be taken back."""
        if checkpoint_step <= self.checkpoint_step:
            return
        self.checkpoint_step = checkpoint_step
        self.journals = journals_of.settled(self.estimate, self.journals, checkpoint_step)

    def settle_before(self, epoch: int) -> None:
        """Records of older epochs have nothing to take back: the rewind wrote every prompt anew that had."""
        self.journals = {row: known for row, known in self.journals.items() if known.epoch >= epoch}

    def rewind(self, rewind: training_pb2.Rewind) -> None:
        """Fold every journal again without what steps after `to_step` did; no prompt was tried later than that."""
        self._hear()
        if self.journals:
            rows, known = np.array(list(self.journals)), list(self.journals.values())
            stands = [
                [(min(s, rewind.to_step), v, lag) for s, v, lag in j.changes if s <= rewind.to_step or lag != MOVED]
                for j in known
            ]
            self.touch(rows)
            stats = fold(self.estimate, [j.base for j in known], stands)
            self.columns["values"][rows] = [stat.values for stat in stats]
            self.columns["decayed"][rows] = [stat.decayed_step for stat in stats]
            self.journals.clear()
        self._tried_by(rewind.to_step)
        self.step = self.checkpoint_step = rewind.to_step
        self.version = max(self.version, rewind.version)

    def clean(self) -> Past:
        """Forget which prompts changed; returns what was known of them before, for `undo`."""
        journals, self._journals_before = self._journals_before, {}
        return self.columns.clean(), journals

    def undo(self, past: Past) -> None:
        """Make prompts what they were."""
        before, journals = past
        self.columns.undo(before)
        self._count()
        for row, known in journals.items():
            if known is None:
                self.journals.pop(row, None)
            else:
                self.journals[row], length = known
                del self.journals[row].changes[length:]

    def _count(self) -> None:
        self.outcomes = int(self.columns["visits"][: len(self)].sum())

    def follow(self, gate: Gate) -> None:
        """Know of the learner what the gate knows."""
        self.learner, self.step, self.version = bool(gate.epoch or gate.step), gate.step, gate.version
        if not self.learner:
            self.version = int(self.columns["last_version"][: len(self)].max(initial=0))
        self.checkpoint_step = min(self.checkpoint_step, gate.checkpoint_step)
        self.settle(gate.checkpoint_step)

    def forget(self) -> None:
        """Every prompt holds the prior again; rows and domains stay."""
        domain, size = self.columns["domain"], self.columns.size
        self.columns = Columns(self.columns.declared)
        self.columns.grow(size)
        self.columns["values"][:size] = self._initial_K
        self.columns["domain"][:size] = domain[:size]
        self.journals, self._journals_before, self.outcomes, self.foreign = {}, {}, 0, set()
        self.step = self.version = self.checkpoint_step = 0
        self.learner = False

    def adopt(self, index: Index, columns: dict[str, np.ndarray], domains: dict[str, int]) -> None:
        """Become what these hold, journals aside."""
        self.rows, self.domains, self.journals, self._journals_before, self.foreign = index, domains, {}, {}, set()
        self.columns = Columns(self.columns.declared)
        self.columns.adopt(columns, used=np.flatnonzero(columns["visits"]))
        self._count()
        self.step = self.version = self.checkpoint_step = 0

    # What is known.

    def view(self, rows_P: np.ndarray, busy: Iterable[str] = (), drawn: int = 0, seed: int = 0) -> View:
        """What is believed now of the prompts in these rows, in that order; `busy` names those in flight."""
        busy_rows = self.rows.find(list(busy))
        busy_rows = np.unique(busy_rows[busy_rows >= 0])
        return View(self, rows_P, busy_rows, drawn, seed, self.turn)

    def get(self, prompt_id: str) -> Row:
        """What is known of a prompt; `KeyError` when it has no row."""
        row = self.rows[prompt_id]
        visits = int(self.columns["visits"][row])
        recent = self.columns["recent"][row, RECENT - min(visits, RECENT) :].tolist()
        version = int(self.columns["last_version"][row])
        return Row(self._stat(row), visits, version, tuple(recent), self.journals.get(row))

    # Records.

    def to_record(self, prompt_id: str) -> posterior_pb2.PosteriorState:
        """The whole state of a prompt; `KeyError` when it has no row."""
        return next(self.to_records(np.array([self.rows[prompt_id]])))

    def to_records(self, rows_N: np.ndarray) -> Iterator[posterior_pb2.PosteriorState]:
        """The whole states of these rows."""
        names, columns = self.estimate.columns, self.columns
        told = {name: columns[name][rows_N].tolist() for name in (*SCALARS, "values", "recent", "decayed", "visits")}
        told["diversity"] = columns["diversity"][rows_N].tolist()
        for place, row in enumerate(rows_N.tolist()):
            visits = told["visits"][place]
            record = posterior_pb2.PosteriorState(
                prompt_id=self.rows.id_of(row),
                estimator=self.writer,
                statistics=dict(zip(names, told["values"][place], strict=True)),
                decayed_step=told["decayed"][place],
                visits=visits,
                recent=told["recent"][place][RECENT - min(visits, RECENT) :],
                step=self.step,
                outcomes=self.outcomes,
                **{name: told[name][place] for name in SCALARS},
            )
            if told["diversity"][place] == told["diversity"][place]:
                record.diversity = told["diversity"][place]
            if known := self.journals.get(row):
                record.base_statistics.update(dict(zip(names, known.base.values, strict=True)))
                record.base_decayed_step = known.base.decayed_step
                record.pending.extend(map(journals_of.to_pending, known.changes))
            yield record

    def from_record(self, record: posterior_pb2.PosteriorState) -> None:
        """Become what the record says of its prompt; one of another writer only makes its row `foreign`."""
        names, columns, row = self.estimate.columns, self.columns, self.add(record.prompt_id)
        # Records of older code name the estimate and not its knobs.
        if record.estimator not in (self.writer, name_of(self.estimate)) or set(record.statistics) != set(names):
            self.foreign_writer = record.estimator
            return self.foreign.add(row)
        self.foreign.discard(row)
        self.outcomes += record.visits - int(columns["visits"][row])
        told: dict[str, Any] = {name: getattr(record, name) for name in SCALARS}
        told |= {"visits": record.visits, "decayed": record.decayed_step}
        told["values"] = [record.statistics[name] for name in names]
        told["diversity"] = record.diversity if record.HasField("diversity") else math.nan
        columns.write(row, told)
        if record.recent:
            columns["recent"][row, RECENT - len(record.recent) :] = record.recent
        self.journals.pop(row, None)
        if record.pending:
            base = Stat(tuple(record.base_statistics[name] for name in names), record.base_decayed_step)
            self.journals[row] = Journal(base, list(map(journals_of.from_pending, record.pending)), record.epoch)
