"""Per-prompt statistics in columns: numpy arrays that grow by doubling, a dictionary from prompt id to row.

Event-sourced: whole-state records (`PosteriorState`) bring a prompt back bit for bit, and applying the same verdicts
and steps in the same order gives the same bits.

A rewind voids what later steps did. So for every prompt that was touched after the newest named checkpoint the store
keeps a journal: its statistics before the first such change, and the changes. A rewind folds them again: outcomes stay
(they are facts) as of the step returned to, movements of void steps go. When a checkpoint covers a change it moves into
the base. A journal is bounded by `MAX_PENDING` changes per prompt; what is pushed out at the front is settled early.

Axes: P rows, K statistics, R recent outcomes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import UserError
from services.difficulty.state import Beliefs, Estimate, Observation, Stat
from sluice.v1 import posterior_pb2, prompt_pb2, rollout_pb2, training_pb2

RECENT = 8
"""Outcomes kept per prompt."""
MAX_PENDING = 4096
"""Changes that a prompt's journal holds."""
UNSEEN = frozenset({"INFRA_ERROR", "NOT_RUN", "UNSPECIFIED"})
"""Outcomes that say nothing of the prompt."""


@dataclass(frozen=True, slots=True)
class Change:
    """An outcome or a movement (nats), and the step known when it was applied."""

    what: Observation | float
    step: int


@dataclass(frozen=True, slots=True)
class Journal:
    """Statistics before the first change that may still be taken back, and the changes."""

    base: Stat
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Everything known of one prompt."""

    stat: Stat
    visits: int = 0
    last_version: int = 0
    recent: tuple[float, ...] = ()
    journal: Journal | None = None


def unseen(verdict: rollout_pb2.Verdict) -> str:
    """Why the posterior must not see this verdict; empty when it must."""
    if verdict.purpose == prompt_pb2.PURPOSE_EVALUATE:
        return "evaluation"
    outcome = rollout_pb2.VerdictOutcome.Name(verdict.outcome).removeprefix("VERDICT_OUTCOME_")
    if outcome in UNSEEN:
        return outcome.lower()
    if not verdict.prompt_id:
        return "no_prompt"
    return "" if 0 <= verdict.accuracy <= 1 else "accuracy_out_of_range"


@dataclass
class Store:
    """The statistics of all prompts under one estimate. `step` and `version` are the learner's, as last heard."""

    estimate: Estimate
    step: int = 0
    version: int = 0
    checkpoint_step: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    dirty: dict[str, Row] = field(default_factory=dict)
    """Prompts changed since `clean`, with what was known of them before."""
    journals: dict[int, Journal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = type(self.estimate).__module__.rpartition(".")[2]
        width = len(self.estimate.columns)
        self._values_PK = np.empty((0, width))
        self._recent_PR = np.empty((0, RECENT))
        self._decayed_P, self._visits_P, self._version_P = (np.empty(0, np.int64) for _ in range(3))

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, prompt_id: str) -> int:
        """The row of a prompt; a new one holds the prior."""
        row = self.rows.get(prompt_id)
        if row is None:
            row = self.rows[prompt_id] = len(self.rows)
            if row == len(self._visits_P):
                self._grow(max(2 * row, 64))
            self._put(row, Row(self.estimate.initial()))
        return row

    def _grow(self, size: int) -> None:
        for name in ("_values_PK", "_recent_PR", "_decayed_P", "_visits_P", "_version_P"):
            old = getattr(self, name)
            new = np.zeros((size, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def get(self, prompt_id: str) -> Row:
        """What is known of a prompt; `KeyError` when it has no row."""
        row = self.rows[prompt_id]
        visits = int(self._visits_P[row])
        kept = min(visits, RECENT)
        return Row(
            stat=Stat(tuple(self._values_PK[row].tolist()), int(self._decayed_P[row])),
            visits=visits,
            last_version=int(self._version_P[row]),
            recent=tuple(self._recent_PR[row, RECENT - kept :].tolist()),
            journal=self.journals.get(row),
        )

    def _put(self, row: int, known: Row) -> None:
        self._values_PK[row] = known.stat.values
        self._decayed_P[row] = known.stat.decayed_step
        self._visits_P[row] = known.visits
        self._version_P[row] = known.last_version
        if known.recent:
            self._recent_PR[row, RECENT - len(known.recent) :] = known.recent
        if known.journal is None:
            self.journals.pop(row, None)
        else:
            self.journals[row] = known.journal

    def _change(self, prompt_id: str, before: Row, after: Row) -> None:
        self.dirty.setdefault(prompt_id, before)
        self._put(self.rows[prompt_id], after)

    def apply_verdict(self, verdict: rollout_pb2.Verdict) -> bool:
        """Count an outcome; False when the posterior must not see it."""
        if unseen(verdict):
            return False
        self.add(verdict.prompt_id)
        before = self.get(verdict.prompt_id)
        observation = Observation(verdict.accuracy, max(self.version - verdict.min_version, 0))
        after = Row(
            stat=self.estimate(before.stat, observation, self.step),
            visits=before.visits + 1,
            last_version=max(before.last_version, verdict.max_version),
            recent=(*before.recent, verdict.accuracy)[-RECENT:],
            journal=self._journal(before, observation),
        )
        self._change(verdict.prompt_id, before, after)
        return True

    def apply_step(self, step: training_pb2.TrainStep) -> None:
        """Apply an optimiser step: the movements it measured, and what its newest checkpoint settles."""
        self.step, self.version = step.step, max(self.version, step.version)
        for shift in step.shifts:
            if math.isfinite(shift.mean_abs_logprob_change) and shift.mean_abs_logprob_change >= 0:
                self._shift(shift.prompt_id, shift.mean_abs_logprob_change)
        self.settle(step.checkpoint_step)

    def _shift(self, prompt_id: str, change: float) -> None:
        self.add(prompt_id)
        before = self.get(prompt_id)
        stat = self.estimate.shifted(before.stat, change, self.step)
        if stat is not before.stat:
            after = dataclasses.replace(before, stat=stat, journal=self._journal(before, change))
            self._change(prompt_id, before, after)

    def _journal(self, before: Row, what: Observation | float) -> Journal | None:
        if self.step <= self.checkpoint_step:
            return before.journal
        journal = before.journal or Journal(before.stat, ())
        changes = (*journal.changes, Change(what, self.step))
        if len(changes) <= MAX_PENDING:
            return Journal(journal.base, changes)
        return Journal(self._fold(journal.base, changes[:1]), changes[1:])

    def _fold(self, stat: Stat, changes: Iterable[Change]) -> Stat:
        for change in changes:
            if isinstance(change.what, Observation):
                stat = self.estimate(stat, change.what, change.step)
            else:
                stat = self.estimate.shifted(stat, change.what, change.step)
        return stat

    def settle(self, checkpoint_step: int) -> None:
        """What was applied at or before this step can no longer be taken back."""
        if checkpoint_step <= self.checkpoint_step:
            return
        self.checkpoint_step = checkpoint_step
        for row, journal in list(self.journals.items()):
            done = sum(change.step <= checkpoint_step for change in journal.changes)
            if done == len(journal.changes):
                del self.journals[row]
            elif done:
                base = self._fold(journal.base, journal.changes[:done])
                self.journals[row] = Journal(base, journal.changes[done:])

    def rewind(self, rewind: training_pb2.Rewind) -> None:
        """Fold every journal again without what steps after `to_step` did."""
        ids = {row: prompt_id for prompt_id, row in self.rows.items()} if self.journals else {}
        for row, journal in list(self.journals.items()):
            before = self.get(ids[row])
            stands = [
                Change(change.what, min(change.step, rewind.to_step))
                for change in journal.changes
                if change.step <= rewind.to_step or isinstance(change.what, Observation)
            ]
            stat = self._fold(journal.base, stands)
            self._change(ids[row], before, dataclasses.replace(before, stat=stat, journal=None))
        self.step = self.checkpoint_step = rewind.to_step
        self.version = max(self.version, rewind.version)

    def beliefs(self, rows_P: np.ndarray, busy: Iterable[str] = (), drawn: int = 0, seed: int = 0) -> Beliefs:
        """What is believed now of the prompts in these rows, in that order; `busy` names those in flight."""
        alpha_P, beta_P = self.estimate.pseudo_counts(self._values_PK[rows_P], self._decayed_P[rows_P], self.step)
        flags = np.zeros(len(self.rows), bool)
        flags[[self.rows[prompt_id] for prompt_id in busy if prompt_id in self.rows]] = True
        return Beliefs(alpha_P, beta_P, self._visits_P[rows_P], flags[rows_P], drawn, seed)

    def clean(self) -> dict[str, Row]:
        """Forget which prompts changed; returns them with what was known before, for `undo`."""
        changed, self.dirty = self.dirty, {}
        return changed

    def undo(self, before: dict[str, Row]) -> None:
        """Make prompts what they were."""
        for prompt_id, row in before.items():
            self._put(self.rows[prompt_id], row)

    def to_record(self, prompt_id: str) -> posterior_pb2.PosteriorState:
        """The whole state of a prompt; `KeyError` when it has no row."""
        known = self.get(prompt_id)
        record = posterior_pb2.PosteriorState(
            prompt_id=prompt_id,
            estimator=self.name,
            statistics=self._named(known.stat),
            decayed_step=known.stat.decayed_step,
            visits=known.visits,
            last_version=known.last_version,
            recent=known.recent,
            step=self.step,
        )
        if known.journal:
            record.base_statistics.update(self._named(known.journal.base))
            record.base_decayed_step = known.journal.base.decayed_step
            record.pending.extend(map(_to_pending, known.journal.changes))
        return record

    def _named(self, stat: Stat) -> dict[str, float]:
        return dict(zip(self.estimate.columns, stat.values, strict=True))

    def from_record(self, record: posterior_pb2.PosteriorState) -> None:
        """Become what the record says of its prompt. Raises `UserError` when another estimate wrote it."""
        columns = self.estimate.columns
        if record.estimator != self.name or set(record.statistics) != set(columns):
            raise UserError(f"the posterior was written by estimate {record.estimator!r}; accepted: {self.name!r}")
        journal = None
        if record.pending:
            base = Stat(tuple(record.base_statistics[name] for name in columns), record.base_decayed_step)
            journal = Journal(base, tuple(map(_from_pending, record.pending)))
        known = Row(
            stat=Stat(tuple(record.statistics[name] for name in columns), record.decayed_step),
            visits=record.visits,
            last_version=record.last_version,
            recent=tuple(record.recent),
            journal=journal,
        )
        self._put(self.add(record.prompt_id), known)


def _to_pending(change: Change) -> posterior_pb2.PosteriorChange:
    if isinstance(change.what, Observation):
        return posterior_pb2.PosteriorChange(step=change.step, accuracy=change.what.accuracy, lag=change.what.lag)
    return posterior_pb2.PosteriorChange(step=change.step, mean_abs_logprob_change=change.what)


def _from_pending(pending: posterior_pb2.PosteriorChange) -> Change:
    if pending.WhichOneof("what") == "accuracy":
        return Change(Observation(pending.accuracy, pending.lag), pending.step)
    return Change(pending.mean_abs_logprob_change, pending.step)
