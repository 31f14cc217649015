"""Decides what to try next: store, gate, sampler, budget and estimate put together. Pure: no clock, log or network.

    Verdict            -> posterior                              changed() -> PosteriorState of every prompt it touched
    TrainStep          -> gate, posterior, version                            GateState, when anything of it changed
    DropNotice, Rewind -> gate, posterior                        issue()   -> RolloutRequest, while the gate has room
    Prompt             -> one more prompt to choose from

What `changed` returns belongs in the transaction that commits the inputs. `restore` of those records, in any process
and whatever the order of the prompts, goes on with the same bits; `undo` is for a transaction that failed.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import Message

from pipeline.data.prompt import RESERVED_IDS
from pipeline.data.prompts import REDEFINED, RESERVED
from pipeline.errors import UserError
from pipeline.evidence import IMPOSSIBLE
from pipeline.gate import Gate
from services.difficulty.calibration import Calibration, Door, at_the_door
from services.difficulty.index import Index
from services.difficulty.requests import refuse_for_training, request_seed
from services.difficulty.seen import REFUSED, Versions
from services.difficulty.state import Beliefs, Budget, Estimate, Sampler
from services.difficulty.store import Past, Store
from services.difficulty.texts import Texts
from services.difficulty.view import View
from sluice.v1 import difficulty_pb2, posterior_pb2, prompt_pb2, rollout_pb2, training_pb2

ASKED = 1
"""Tells the random streams of `preview` from every other of the seed."""
COMPARED = 4096
"""Prompts that a score is told among, where there are more."""
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
    texts_path: Path | None = None
    """Where the prompts' messages are kept; None for a file without a name."""
    draining: bool = False
    """Issue nothing new; observe on."""
    versions: Versions | None = None
    """Versions whose rollouts may be observed; None accepts all."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Inputs that changed nothing, by reason; of what is committed."""

    refused: list[tuple[Message, str]] = field(default_factory=list)
    """Verdicts and prompts that are dead letters, and why; they stay until they were told and that is committed."""
    calibration: Calibration = field(default_factory=Calibration)

    def __post_init__(self) -> None:
        refuse_for_training(self.sampling)
        if self.request_deadline_s <= 0:
            raise UserError(f"request_deadline_s is {self.request_deadline_s}; accepted: above 0")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; accepted: at least 0")
        self.gate.groups_of(self.budget.typical, self.budget.kept)
        self.store = Store(self.estimate, self.gate.batch_rollouts)
        self.prompts = Texts(self.store.rows, self.texts_path)
        self.applied: list[training_pb2.Offset] = []
        self._applied_told = self._applied_previous = self.applied
        self._rows_P, self._told = np.empty(0, np.int64), 0
        self._rng = np.random.default_rng(self.seed)
        self._save_rng()
        self._initial = self._written = self._previous = self.gate.to_record()
        self._undo: list[Past] = []
        self._new_ignored: Counter[str] = Counter()
        self._new_seen: list[tuple[list[rollout_pb2.Verdict], list[str], Door]] = []
        self._refused_prompts: set[tuple[str, bytes]] = set()
        self._asked = 0
        """Prompts that `preview` has answered; a new process goes on from those before the newest outcomes."""
        self.outcomes_told = 0
        """What the records restored from say of all outcomes; `store.outcomes` is less when some are missing."""
        self.gate_known = False
        """Whether the gate's record was among them."""

    # Inputs.

    def observe(self, nouns: Iterable[Message]) -> None:
        """Apply nouns in the order in which they are given; verdicts that follow each other are applied together."""
        for kind, run in itertools.groupby(nouns, type):
            if kind is rollout_pb2.Verdict:
                self._verdicts(list(run))
                continue
            for noun in run:
                self._count(self._apply(noun))

    def _verdicts(self, verdicts: list[rollout_pb2.Verdict]) -> None:
        door = at_the_door(self.store, verdicts)
        reasons = self.store.apply_verdicts(verdicts, self.versions, self.prompts.has)
        if any(reasons):
            self._new_ignored.update(filter(None, reasons))
            self.refused += [(v, why) for v, why in zip(verdicts, reasons, strict=True) if why in REFUSED]
        self._new_seen.append((verdicts, reasons, door))

    def _apply(self, noun: Message) -> str:
        match noun:
            case training_pb2.TrainStep():
                return "" if self._step(noun) else "void_step"
            case training_pb2.DropNotice():
                return "" if self.gate.apply_drops(noun) else "void_drops"
            case training_pb2.Rewind():
                return "" if self._rewind(noun) else "old_rewind"
            case prompt_pb2.Prompt():
                return self.add(noun)
            case _:
                return "not_for_difficulty"

    def _count(self, reason: str) -> None:
        if reason:
            self._new_ignored[reason] += 1

    def _step(self, step: training_pb2.TrainStep) -> bool:
        if not self.gate.apply_step(step):
            return False
        self._new_ignored.update({IMPOSSIBLE: n} if (n := self.store.apply_step(step)) else {})
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
        if prompt.prompt_id in RESERVED_IDS:
            return self._refuse(prompt, RESERVED)
        if not self.prompts.add(prompt):
            return self._refuse(prompt, REDEFINED)
        self.store.put_domain(prompt.prompt_id, prompt.domain)
        return ""

    def _refuse(self, prompt: prompt_pb2.Prompt, why: str) -> str:
        known = (prompt.prompt_id, prompt.digest)
        if known not in self._refused_prompts:  # a start or a call that is repeated reads it again
            self._refused_prompts.add(known)
            self.refused.append((prompt, why))
        return why

    # Decisions.

    def issue(self, now_ms: int) -> list[prompt_pb2.RolloutRequest]:
        """Requests for whole groups, as many as the gate has room for; one request per group.

        `now_ms`: milliseconds since the Unix epoch.
        """
        requests: list[prompt_pb2.RolloutRequest] = []
        if self.draining or not self.prompts:
            return requests
        version = max(self.gate.version, self.versions.newest if self.versions else 0)
        while (wanted := self._wanted(room := self.gate.room())) > 0:
            view = self.view()
            places = self.sampler(view, min(wanted, len(self.prompts)), self._rng)
            self.gate.drawn += len(places)
            chosen, rows = view.take(places), view.rows_P[places]
            counts = self.budget(chosen, room * len(places) // wanted)
            for place in np.flatnonzero(counts):
                belief = self.belief(chosen, place)
                requests.append(self._request(int(rows[place]), int(counts[place]), belief, now_ms, version))
            if not counts.any():
                break
        self._save_rng()
        self.calibration.issued(requests)
        return requests

    def waits_for_room(self) -> bool:
        """Whether the gate has no room for what the budget would issue next."""
        return self._wanted(self.gate.room()) <= 0

    def _wanted(self, room: int) -> int:
        return self.budget.prompts(room, self.gate.groups, self.gate.batch_groups)

    def view(self) -> View:
        """What is believed now of every registered prompt, in the order of their ids."""
        busy = {request.prompt_id for request in self.gate.open.values() if request.places}
        return self.store.view(self._rows(), busy, self.gate.drawn, self.seed)

    def _rows(self) -> np.ndarray:
        if len(self._rows_P) != len(self.prompts):
            self._rows_P = self.store.rows.sorted_rows(self.prompts.rows()).astype(np.intp)
        return self._rows_P

    def belief(self, beliefs: Beliefs, place: int) -> prompt_pb2.Belief:
        """What is believed of one of these prompts, as a request carries it."""
        mean, effective_n = float(beliefs.mean_P[place]), float(beliefs.effective_n_P[place])
        return prompt_pb2.Belief(mean=mean, effective_n=effective_n, as_of_step=self.gate.step)

    def _request(
        self, row: int, n: int, belief: prompt_pb2.Belief, now_ms: int, version: int
    ) -> prompt_pb2.RolloutRequest:
        prompt = self.prompts.at(row)
        prompt_id, oldest = prompt.prompt_id, min(self.gate.oldest_version, version)
        request_id, group_id = self.gate.next_ids()
        deadline_ms = now_ms + int(self.request_deadline_s * 1000)
        self.gate.issue(request_id, n, 0, prompt_id, deadline_ms)
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
            oldest_version=oldest,
            deadline_ms=deadline_ms,
            purpose=prompt_pb2.PURPOSE_TRAIN,
            domain=prompt.domain,
            family=prompt.family,
        )
        request.sampling.seed = request_seed(self.seed, request_id)
        return request

    def preview(self, n: int) -> list[difficulty_pb2.Choice]:
        """What a program that reads no requests is to try next; beliefs, gate and requests stay as they are.

        Each answer goes on where the one before it ended, with or without news, and a new process goes on from where
        it was at the newest outcomes. `UserError` when it cannot choose `n`.
        """
        # What is in flight is not avoided: without a generation to serve it, it would never be tried at all.
        view = self.store.view(self._rows(), (), self._asked, self.seed)
        places = self.sampler(view, n, np.random.default_rng([self.seed, ASKED, self._asked]))
        self._asked += len(places)
        chosen, (score_N, _) = view.take(places), self.scores(view, places)
        counts = self.budget(chosen, max(len(places) * self.budget.typical, 0))
        prompt_ids = map(self.store.rows.id_of, view.rows_P[places].tolist())
        return [
            difficulty_pb2.Choice(prompt_id=prompt_id, rollouts=count, belief=self.belief(chosen, place), score=score)
            for place, (prompt_id, count, score) in enumerate(
                zip(prompt_ids, counts.tolist(), score_N.tolist(), strict=True)
            )
        ]

    def scores(self, view: View, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(the sampler's scores of these places, those of what they are compared with): all, or a part of many."""
        if len(view) <= COMPARED:
            score_P = self.sampler.score(view.all())
            return score_P[places], score_P
        others = np.random.default_rng(self.seed).integers(len(view), size=COMPARED)
        score_P = self.sampler.score(view.take(np.concatenate([places, others])))
        return score_P[: len(places)], score_P[len(places) :]

    # State.

    def posterior(self, prompt_id: str) -> posterior_pb2.PosteriorState:
        """The whole state of a prompt; `KeyError` when it is unknown."""
        return next(self._posteriors(np.array([self.store.rows[prompt_id]])))

    def _posteriors(self, rows_N: np.ndarray) -> Iterator[posterior_pb2.PosteriorState]:
        for record in self.store.to_records(rows_N):
            record.epoch = self.gate.epoch
            record.applied.extend(self.applied)
            yield record

    def committed(self) -> None:
        """What `changed` returned last is on the log: `undo` goes back to here."""
        self._undo, self._previous, self._applied_previous = [], self._written, self._applied_told
        del self.refused[: self._told]
        self._told = 0
        self.ignored.update(self._new_ignored)
        for seen in self._new_seen:
            self.calibration.add(*seen)
        self._new_ignored, self._new_seen = Counter(), []

    def refusals(self) -> list[tuple[Message, str]]:
        """Dead letters that belong in the transaction of what `changed` returns, and why."""
        self._told = len(self.refused)
        return self.refused

    def changed(self) -> list[posterior_pb2.PosteriorState | posterior_pb2.GateState]:
        """Records of what changed since the last call, prompts by id and the gate last."""
        rows_N = self.store.rows.sorted_rows(np.unique(self.store.columns.changed()))
        self._undo.append(self.store.clean())
        gate = self.gate.to_record()
        gate.outcomes, self._applied_told = self._written.outcomes, self.applied
        gate.asked = self._asked if len(rows_N) else self._written.asked  # a question alone writes nothing
        records: list[Any] = list(self._posteriors(rows_N))
        if gate != self._written:
            gate.outcomes = self.store.outcomes
            self._written = gate
            record = posterior_pb2.GateState()
            record.CopyFrom(gate)
            record.applied.extend(self.applied)
            records.append(record)
        return records

    def undo(self) -> None:
        """Take back everything since `committed`: its inputs will come again."""
        for past in (self.store.clean(), *reversed(self._undo)):
            self.store.undo(past)
        self._undo, self._written, self.applied = [], self._previous, self._applied_previous
        # Verdicts come again; a prompt is read once, and at a start before any call.
        self.refused = [(noun, why) for noun, why in self.refused if isinstance(noun, prompt_pb2.Prompt)]
        self._told, self._new_ignored, self._new_seen = 0, Counter(), []
        self._become(self._written)

    def restore(self, records: Iterable[Message]) -> None:
        """Become what the records say and nothing else; the newest of each key comes last. Prompts stay registered.

        What another estimate wrote is not taken over: `store.foreign`.
        """
        self.store.forget()
        self._written, self.outcomes_told, self.gate_known = self._initial, 0, False
        self.replay(records)

    def refold(self, nouns: Iterable[Message]) -> None:
        """Fold every prompt anew from these verdicts, steps and rewinds; gate and prompts stay as they are."""
        gate, self.gate = self.gate, Gate(self.gate.max_lag, self.gate.batch_rollouts)
        told = list(self.refused), self._new_ignored.copy(), list(self._new_seen)
        self.store.forget()
        self.observe(nouns)
        self.gate, (self.refused, self._new_ignored, self._new_seen) = gate, told

    def gate_record(self) -> posterior_pb2.GateState:
        """The gate's record as it was written last."""
        return self._written

    def adopt(
        self,
        index: Index,
        columns: dict[str, np.ndarray],
        domains: dict[str, int],
        texts: Texts,
        records: Iterable[Message],
    ) -> None:
        """Become what a snapshot says: its ids, columns, messages, and the records of the gate and of journals."""
        self.prompts.close()
        self.store.adopt(index, columns, domains)
        self.prompts, self._rows_P, self._written = texts, np.empty(0, np.intp), self._initial
        self.outcomes_told, self.gate_known = 0, False
        self.replay(records)

    def replay(self, records: Iterable[Message]) -> None:
        """Become what the records say, over what is known: those that are newer than a snapshot."""
        for record in records:
            self.outcomes_told = max(self.outcomes_told, record.outcomes)
            if isinstance(record, posterior_pb2.PosteriorState):
                self.store.from_record(record)
            elif isinstance(record, posterior_pb2.GateState):
                self._written = posterior_pb2.GateState()
                self._written.CopyFrom(record)
                self._written.ClearField("applied")
                self.gate_known = True
        self.store.settle_before(self._written.epoch)
        self._asked = self._written.asked
        self._become(self._written)
        self.store.clean()
        self.calibration.clear()
        self.committed()

    def _become(self, record: posterior_pb2.GateState) -> None:
        self.gate.from_record(record)
        self.store.follow(self.gate)
        self._rng.bit_generator.state = json.loads(self.gate.rng_json)

    def _save_rng(self) -> None:
        self.gate.rng_json = json.dumps(self._rng.bit_generator.state, sort_keys=True)
