"""The transformers engine: continuous batching over any causal language model of that library, on CPU or GPU.

One thread turns this wheel; everybody else only puts things into the inbox and takes things out of the outbox:

    inbox (jobs, aborts, weights) -> between two steps: aborts, deadlines, weights -> admit -> step -> outbox

A job joins when a slot is free, at any step. A prefill costs about as much as a step however few jobs it serves, so
admission waits until the steps that free slots have sat out amount to half a step of all slots (the ski-rental rule: at
most twice the cost of knowing how many more would come). New weights come between two steps: running rows go on, their
cached context kept or computed again (`kv`). On a CPU the memory in which they lie is exchanged for the model's.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from concurrent.futures import Future
from typing import Any

import torch
import transformers
from torch import Tensor

from pipeline.errors import UserError
from services.generation.engine import loading, parameters
from services.generation.engine.api import KV_POLICIES, Completion, EngineDied, EngineOptions, Job, Partial
from services.generation.engine.batch import Batch, Ended, Row
from services.generation.engine.decoder import Decoder
from services.generation.engine.heat import Heat
from services.generation.engine.stops import StopScan
from sluice.v1 import rollout_pb2

APPLY_TIMEOUT_S = 120.0
SWEEP_S = 0.05
IDLE_S = 0.05
Plan = Sequence[parameters.Patch | parameters.Exchange]
WORTH_A_PREFILL = 0.5
"""Row-steps, as a share of the slots, that may be lost before waiting jobs are admitted."""


class TransformersEngine:
    """See `engine.api.Engine`. `model` is a Hugging Face id or a folder, or a model with its tokenizer."""

    replicas = 1
    kv_shared = False

    def __init__(self, model: str | torch.nn.Module, options: EngineOptions, tokenizer: Any = None) -> None:
        if options.kv not in KV_POLICIES:
            raise UserError.choice("kv", options.kv, KV_POLICIES)
        if options.tensor_parallel > 1:
            accepted = "accepted: 1, or engine: vllm"
            raise UserError(f"tensor_parallel is {options.tensor_parallel} with engine transformers; {accepted}")
        if options.threads:
            torch.set_num_threads(options.threads)
        self.tokenizer = tokenizer or loading.load_tokenizer(str(model))
        loaded = loading.load_model(model, options) if isinstance(model, str) else model
        self.name = f"transformers {transformers.__version__}"
        self.kv = options.kv
        self.version = 0
        self.max_len = loading.context_length(loaded, options)
        vocab = loaded.get_input_embeddings().weight.shape[0]
        eos = loading.eos_of(loaded, self.tokenizer)
        self._heat = Heat(options.heats) if options.heats else None
        self._batch = Batch(options.slots, self.max_len, vocab, eos, heated=self._heat is not None)
        self._decoder = Decoder(loaded, self._batch, self._heat)
        self._parameters = parameters.Parameters(loaded)
        self._scan_tokenizer = copy.deepcopy(self.tokenizer)
        self._lock = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._aborts: dict[str, str] = {}
        self._updates: deque[tuple[int, Plan, Future[float]]] = deque()
        self._outbox: deque[Ended] = deque()
        self._partials: list[Partial] = []
        self._out = threading.Condition()
        self._error: BaseException | None = None
        self._closing = False
        self._running = 0
        self._busy_s = 0.0
        self._swept_s = 0.0
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """See `Engine`. A context without room for one more token is the caller's mistake."""
        if not 0 < len(job.tokens) < self.max_len:
            raise UserError(f"context has {len(job.tokens)} tokens; accepted: 1 to {self.max_len - 1}")
        stops = StopScan(self._decode_for_scan, job.sampling.stop) if job.sampling.stop else None
        with self._lock:
            self._check()
            self._waiting.append(Row(job, time.monotonic(), stops=stops))
            self._running += 1
            self._lock.notify()

    def abort(self, ids: Collection[str], reason: str = "aborted") -> None:
        """See `Engine`."""
        with self._lock:
            self._aborts.update(dict.fromkeys(ids, reason))
            self._lock.notify()

    def partials(self) -> list[Partial]:
        """See `Engine`."""
        with self._out:
            found, self._partials = self._partials, []
        return found

    def finished(self, timeout: float) -> list[Completion]:
        """See `Engine`. Text is decoded here, on the caller's thread."""
        with self._out:
            if not self._outbox and self._error is None:
                self._out.wait(timeout)
            ended = list(self._outbox)
            self._outbox.clear()
        if not ended:
            self._check()
        return [self._completion(one) for one in ended]

    def apply(
        self,
        version: int,
        tensors: Mapping[str, Tensor],
        changed: Mapping[str, Tensor | None] | None = None,
        given: MutableMapping[str, Tensor] | None = None,
    ) -> float:
        """See `Engine`. Names and shapes are checked, and values put where they are needed, before generation stops."""
        plan = self._parameters.plan(tensors, changed, given)
        done: Future[float] = Future()
        with self._lock:
            self._check()
            self._updates.append((version, plan, done))
            self._lock.notify()
        try:
            return done.result(APPLY_TIMEOUT_S)
        except TimeoutError as error:
            raise EngineDied(f"version {version} was not applied in {APPLY_TIMEOUT_S:g} s: the engine hangs") from error

    def running(self) -> int:
        """See `Engine`."""
        return self._running

    def capacity(self) -> int:
        """See `Engine`."""
        return self._batch.slots

    def kv_use(self) -> float:
        """See `Engine`: of all positions of all slots."""
        return self._batch.held / (self._batch.slots * self.max_len)

    def preempted(self) -> int:
        """See `Engine`: never."""
        return 0

    def busy_s(self) -> float:
        """See `Engine`."""
        return self._busy_s

    def close(self) -> None:
        """See `Engine`."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join(30.0)

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while not self._closing:
                    self._turn()
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks next; the thread ends
            self._die(error)

    def _die(self, error: BaseException) -> None:
        with self._lock:
            self._error = error
            updates = list(self._updates)
        for _, _, done in updates:
            done.set_exception(EngineDied(f"engine ended: {error}"))
        with self._out:
            self._out.notify_all()

    def _check(self) -> None:
        if self._error is not None:
            raise EngineDied(f"engine ended: {type(self._error).__name__}: {self._error}") from self._error

    def _turn(self) -> None:
        """One turn of the wheel."""
        self._interrupts()
        begin = time.perf_counter()
        self._decoder.prefill(self._admit())
        self._decoder.compact()
        if not self._batch.n:
            with self._lock:
                if not (self._waiting or self._updates or self._aborts or self._closing):
                    self._lock.wait(IDLE_S)
            return
        drawn = self._decoder.step()
        now_s = time.monotonic()
        endings = self._batch.record(*drawn, now_s)
        self._emit([self._batch.remove(slot, ending, now_s) for slot, ending in endings.items()])
        self._show(self._batch.shown())
        self._busy_s += time.perf_counter() - begin

    def _interrupts(self) -> None:
        """What came in from outside since the last step."""
        if self._aborts:
            with self._lock:
                aborts, self._aborts = self._aborts, {}
            self._end(lambda row: aborts.get(row.job.id, ""), rollout_pb2.ENDING_ABORTED)
        now_s = time.monotonic()
        if now_s - self._swept_s > SWEEP_S:
            self._swept_s = now_s
            now_ms = int(time.time() * 1000)
            late = {False: "", True: "deadline"}
            self._end(lambda row: late[0 < row.job.deadline_ms < now_ms], rollout_pb2.ENDING_EXPIRED)
        while self._updates:
            self._update(*self._updates[0])
            self._updates.popleft()

    def _end(self, why: Callable[[Row], str], ending: rollout_pb2.Ending) -> None:
        """End the rows, running or waiting, for which there is a reason."""
        now_s = time.monotonic()
        running = [(slot, why(row)) for slot, row in enumerate(self._batch.rows[: self._batch.n]) if row is not None]
        ended = [self._batch.remove(slot, ending, now_s, reason) for slot, reason in running if reason]
        with self._lock:
            leaving = [(row, reason) for row in self._waiting if (reason := why(row))]
            if leaving:
                self._waiting = deque(row for row in self._waiting if not why(row))
        self._emit(ended + [Ended(row, [], [], ending, now_s, reason) for row, reason in leaving])

    def _update(self, version: int, plan: Plan, done: Future[float]) -> None:
        begin = time.perf_counter()
        parameters.write(plan)
        self.version = version
        self._batch.stamp(version)
        if self._heat is not None:
            self._heat.renew()
        if self.kv == "recompute":
            self._decoder.prefill([slot for slot, row in enumerate(self._batch.rows[: self._batch.n]) if row])
        done.set_result(time.perf_counter() - begin)

    def _admit(self) -> list[int]:
        """Slots that waiting jobs have just been put into."""
        free = self._batch.free
        if not self._waiting or not free:
            return []
        self._lost += free
        if self._batch.live and self._lost < WORTH_A_PREFILL * self._batch.slots:
            return []
        self._lost = 0
        with self._lock:
            rows = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
        return [self._batch.place(row, self.version) for row in rows]

    def _emit(self, ended: list[Ended]) -> None:
        if not ended:
            return
        with self._lock:
            self._running -= len(ended)
        with self._out:
            self._outbox.extend(ended)
            self._out.notify()

    def _show(self, partials: list[Partial]) -> None:
        if partials:
            with self._out:
                self._partials += partials
                self._out.notify()

    def _completion(self, ended: Ended) -> Completion:
        row = ended.row
        first_s = row.first_s or ended.ended_s
        return Completion(
            row.job.id,
            ended.tokens,
            ended.logprobs,
            row.spans if ended.tokens else [],
            ended.ending,
            self._text(ended),
            ended.reason,
            first_s - row.submitted_s,
            ended.ended_s - first_s,
            ended.temperatures,
        )

    def _text(self, ended: Ended) -> str:
        scan, tokens = ended.row.stops, ended.tokens
        if tokens and self._batch.is_eos_V[tokens[-1]]:
            tokens = tokens[:-1]
        if scan is not None and ended.ending == rollout_pb2.ENDING_STOP and len(tokens) == len(ended.tokens):
            return scan.text
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def _decode_for_scan(self, tokens: list[int]) -> str:
        return self._scan_tokenizer.decode(tokens, skip_special_tokens=True)
