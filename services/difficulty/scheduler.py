"""Decides what to try next: store, gate, sampler, budget and estimate put together. Pure: no clock, log or network.

    Verdict            -> posterior                              changed() -> PosteriorState of every prompt it touched
    TrainStep          -> gate, posterior, version                            GateState, when anything of it changed
    DropNotice, Rewind -> gate, posterior                        issue()   -> RolloutRequest, while the gate has room
    Prompt             -> one more prompt to choose from

What `changed` returns belongs in the transaction that commits the inputs. `restore` of those records, in any process
and whatever the order of the prompts, goes on with the same bits; `undo` is for a transaction that failed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf.message import Message

from pipeline.errors import UserError
from pipeline.gate import Gate
from services.difficulty.state import Beliefs, Budget, Estimate, Sampler
from services.difficulty.store import Row, Store, unseen
from sluice.v1 import difficulty_pb2, posterior_pb2, prompt_pb2, rollout_pb2, training_pb2

GATE_KEY = "__gate__"
"""Key of the gate's record."""
TRAIN_SPLITS = ("", "train")
"""Prompts of these splits are tried; those of evaluation sets never are."""


@dataclass
class Scheduler:
    """One run's difficulty service.

    `sampler` and `budget` are parts; `sampling` is copied into every request; `seed` is the run's.
    `request_deadline_s`: seconds after its issue in which a request is worth starting, > 0.
    """

    estimate: Estimate
    sampler: Sampler
    budget: Budget
    gate: Gate
    sampling: prompt_pb2.SamplingParams
    seed: int = 0
    request_deadline_s: float = 600.0
    draining: bool = False
    """Issue nothing new; observe on."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Inputs that changed nothing, by reason."""

    def __post_init__(self) -> None:
        refuse_for_training(self.sampling)
        if self.request_deadline_s <= 0:
            raise UserError(f"request_deadline_s is {self.request_deadline_s}; accepted: above 0")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; accepted: at least 0")
        self.gate.refuse_group_of(self.budget.largest)
        self.store = Store(self.estimate)
        self.prompts: dict[str, prompt_pb2.Prompt] = {}
        self.applied: list[training_pb2.Offset] = []
        self._ids: list[str] = []
        self._rows_P = np.empty(0, np.int64)
        self._rng = np.random.default_rng(self.seed)
        self._save_rng()
        self._initial = self._written = self._previous = self.gate.to_record()
        self._undo: dict[str, Row] = {}

    # Inputs.

    def observe(self, nouns: Iterable[Message]) -> None:
        """Apply nouns in the order in which they are given."""
        for noun in nouns:
            match noun:
                case rollout_pb2.Verdict():
                    self._count(unseen(noun) if not self.store.apply_verdict(noun) else "")
                case training_pb2.TrainStep():
                    self._count("" if self._step(noun) else "void_step")
                case training_pb2.DropNotice():
                    self._count("" if self.gate.apply_drops(noun) else "void_drops")
                case training_pb2.Rewind():
                    self._count("" if self._rewind(noun) else "old_rewind")
                case prompt_pb2.Prompt():
                    self._count(self.add(noun))
                case _:
                    self._count("not_for_difficulty")

    def _count(self, reason: str) -> None:
        if reason:
            self.ignored[reason] += 1

    def _step(self, step: training_pb2.TrainStep) -> bool:
        if not self.gate.apply_step(step):
            return False
        self.store.apply_step(step)
        return True

    def _rewind(self, rewind: training_pb2.Rewind) -> bool:
        if not self.gate.rewind(rewind):
            return False
        self.store.rewind(rewind)
        return True

    def add(self, prompt: prompt_pb2.Prompt) -> str:
        """Register a prompt; returns why it was left out, empty when it was not. Its answer is not kept."""
        if prompt.split not in TRAIN_SPLITS:
            return "evaluation_prompt"
        kept = prompt_pb2.Prompt()
        kept.CopyFrom(prompt)
        for name in ("check", "reference_solution", "hints"):
            kept.ClearField(name)
        known = self.prompts.get(prompt.prompt_id)
        if known is not None and known.digest != kept.digest:
            return "prompt_digest_differs"
        self.prompts[prompt.prompt_id] = kept
        self.store.add(prompt.prompt_id)
        return ""

    # Decisions.

    def issue(self, now_ms: int, newest_version: int | None = None) -> list[prompt_pb2.RolloutRequest]:
        """Requests for whole groups, as many as the gate has room for; one request per group.

        `now_ms`: milliseconds since the Unix epoch. `newest_version`: newest announced; None takes the learner's.
        """
        requests: list[prompt_pb2.RolloutRequest] = []
        if self.draining or not self.prompts:
            return requests
        version = self.gate.version if newest_version is None else newest_version
        while (wanted := min(self.budget.prompts(self.gate.room()), len(self.prompts))) > 0:
            beliefs = self.beliefs()
            rows = self.sampler(beliefs, wanted, self._rng)
            self.gate.drawn += len(rows)
            chosen = beliefs.take(rows)
            counts = self.budget(chosen, self.gate.room())
            for place in np.flatnonzero(counts):
                belief = self._belief(chosen, place)
                requests.append(self._request(self._ids[rows[place]], int(counts[place]), belief, now_ms, version))
            if not counts.any():
                break
        self._save_rng()
        return requests

    def beliefs(self) -> Beliefs:
        """What is believed now of every registered prompt, in the order of their ids."""
        if len(self._ids) != len(self.prompts):
            self._ids = sorted(self.prompts)
            self._rows_P = np.array([self.store.rows[prompt_id] for prompt_id in self._ids], np.int64)
        busy = {request.prompt_id for request in self.gate.open.values() if request.places}
        return self.store.beliefs(self._rows_P, busy, self.gate.drawn, self.seed)

    def _belief(self, beliefs: Beliefs, place: int) -> prompt_pb2.Belief:
        mean, effective_n = float(beliefs.mean_P[place]), float(beliefs.effective_n_P[place])
        return prompt_pb2.Belief(mean=mean, effective_n=effective_n, as_of_step=self.gate.step)

    def _request(
        self, prompt_id: str, n: int, belief: prompt_pb2.Belief, now_ms: int, version: int
    ) -> prompt_pb2.RolloutRequest:
        request_id, group_id = self.gate.next_ids()
        deadline_ms = now_ms + int(self.request_deadline_s * 1000)
        self.gate.issue(request_id, n, 0, prompt_id, deadline_ms)
        prompt = self.prompts[prompt_id]
        request = prompt_pb2.RolloutRequest(
            request_id=request_id,
            group_id=group_id,
            final=True,
            attempt=1,
            prompt_id=prompt_id,
            prompt_digest=prompt.digest,
            messages=prompt.messages,
            n=n,
            sampling=self.sampling,
            belief=belief,
            version_at_issue=version,
            deadline_ms=deadline_ms,
            purpose=prompt_pb2.PURPOSE_TRAIN,
            domain=prompt.domain,
            family=prompt.family,
        )
        request.sampling.seed = request_seed(self.seed, request_id)
        return request

    def preview(self, n: int) -> list[difficulty_pb2.Choice]:
        """What the sampler would choose now, changing nothing. `UserError` when it cannot choose `n`."""
        beliefs, rng = self.beliefs(), np.random.default_rng()
        rng.bit_generator.state = json.loads(self.gate.rng_json)
        rows = self.sampler(beliefs, n, rng)
        chosen, score_P = beliefs.take(rows), self.sampler.score(beliefs)
        counts = self.budget(chosen, len(rows) * self.budget.largest)
        return [
            difficulty_pb2.Choice(
                prompt_id=self._ids[row], rollouts=int(count), belief=self._belief(chosen, place), score=score_P[row]
            )
            for place, (row, count) in enumerate(zip(rows, counts, strict=True))
        ]

    # State.

    def posterior(self, prompt_id: str) -> posterior_pb2.PosteriorState:
        """The whole state of a prompt; `KeyError` when it is unknown."""
        record = self.store.to_record(prompt_id)
        record.epoch = self.gate.epoch
        record.applied.extend(self.applied)
        return record

    def committed(self) -> None:
        """What `changed` returned last is on the log: `undo` goes back to here."""
        self._undo, self._previous = {}, self._written

    def changed(self) -> list[posterior_pb2.PosteriorState | posterior_pb2.GateState]:
        """Records of what changed since the last call, prompts by id and the gate last."""
        before, gate = self.store.clean(), self.gate.to_record()
        self._undo = before | self._undo
        records: list[Any] = [self.posterior(prompt_id) for prompt_id in sorted(before)]
        if gate != self._written:
            self._written = gate
            record = posterior_pb2.GateState()
            record.CopyFrom(gate)
            record.applied.extend(self.applied)
            records.append(record)
        return records

    def undo(self) -> None:
        """Take back everything since `committed`: its inputs will come again."""
        self.store.undo(self.store.clean())
        self.store.undo(self._undo)
        self._undo, self._written = {}, self._previous
        self._become(self._written)

    def restore(self, records: Iterable[Message]) -> None:
        """Become what the records say and nothing else; the newest of each key comes last. Prompts stay registered.

        Raises `UserError` when another estimate wrote them.
        """
        self.store, self._ids, self._written = Store(self.estimate), [], self._initial
        for prompt_id in self.prompts:
            self.store.add(prompt_id)
        for record in records:
            if isinstance(record, posterior_pb2.PosteriorState):
                self.store.from_record(record)
            elif isinstance(record, posterior_pb2.GateState):
                self._written = posterior_pb2.GateState()
                self._written.CopyFrom(record)
                self._written.ClearField("applied")
        self._become(self._written)
        self.store.clean()
        self.committed()

    def _become(self, record: posterior_pb2.GateState) -> None:
        self.gate.from_record(record)
        self.store.step, self.store.version = self.gate.step, self.gate.version
        self.store.checkpoint_step = min(self.store.checkpoint_step, self.gate.checkpoint_step)
        self.store.settle(self.gate.checkpoint_step)
        self._rng.bit_generator.state = json.loads(self.gate.rng_json)

    def _save_rng(self) -> None:
        self.gate.rng_json = json.dumps(self._rng.bit_generator.state, sort_keys=True)


def request_seed(seed: int, request_id: str) -> int:
    """Seed of a request's draws, from the run's seed: never 0, below 2 ** 63.

    >>> request_seed(0, "r-00000001") == request_seed(0, "r-00000001") != request_seed(1, "r-00000001")
    True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{request_id}".encode()).digest()[:8]) >> 1 or 1


def refuse_for_training(sampling: prompt_pb2.SamplingParams) -> None:
    """Training needs log-probs of the whole distribution: refuse what cuts it."""
    if not 0 < sampling.temperature < float("inf"):
        raise UserError(f"sampling.temperature is {sampling.temperature}; accepted for training: above 0")
    for name, wanted in (("top_p", 1), ("top_k", 0), ("min_p", 0), ("min_tokens", 0)):
        if getattr(sampling, name) != wanted:
            raise UserError(f"sampling.{name} is {getattr(sampling, name)}; accepted for training: {wanted}")
    if sampling.max_tokens < 1:
        raise UserError(f"sampling.max_tokens is {sampling.max_tokens}; accepted: at least 1")
