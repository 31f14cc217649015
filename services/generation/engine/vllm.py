"""The vLLM engine: embeds `AsyncLLM`, whose core runs in a process of its own, and drives it from one asyncio thread.

    submit --> task per job --> AsyncLLM.generate --> outbox
    apply  --> file in shared memory --> pause (keep) --> update through vLLM's own weight transfer --> resume

vLLM stamps the version of every token (`weight_versions`); it learns the version in the pause. `kv: recompute` clears
the caches in that pause, and running rows are computed again under the new weights. With `keep` they stay, and the
prefix cache is off: a fresh prompt must never meet the cached context of an older policy. A LoRA adapter goes another
way (`vllm_adapter.py`). With fp8 vLLM quantises what it loads: every update is the whole policy, as it is here anyway.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Collection, Coroutine, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import UserError
from services.generation.engine import loading, vllm_adapter
from services.generation.engine.api import KV_POLICIES, Completion, EngineDied, EngineOptions, Job, Partial
from services.generation.engine.parameters import Parameters
from services.generation.engine.vllm_setup import Gauge, arguments, imported
from sluice.v1 import rollout_pb2

LOAD_S = 900.0
APPLY_S = 300.0
SWEEP_S = 0.05
ENDINGS = {"stop": rollout_pb2.ENDING_STOP, "length": rollout_pb2.ENDING_LENGTH, "abort": rollout_pb2.ENDING_ABORTED}

TAKEN_BACK = (rollout_pb2.ENDING_ABORTED, rollout_pb2.ENDING_EXPIRED)


@dataclass(slots=True)
class _Running:
    """A job in work. Times are seconds of `time.monotonic()`; `taken_back` is why it was aborted."""

    job: Job
    submitted_s: float
    taken_back: str = ""


class VllmEngine:
    """See `engine.api.Engine`. `model` is a Hugging Face id or a folder."""

    replicas = 1
    kv_shared = True

    def __init__(self, model: str, options: EngineOptions) -> None:
        if options.kv not in KV_POLICIES:
            raise UserError.choice("kv", options.kv, KV_POLICIES)
        if options.heats is not None:
            raise UserError(f"guidance {options.heats} sets temperatures token by token; accepted: engine transformers")
        vllm = imported(options)
        self.tokenizer = loading.load_tokenizer(model)
        self.name = f"vllm {vllm.__version__}"
        self.kv, self.version, self.slots = options.kv, 0, options.slots
        self._vllm = vllm
        self._lora: Any = None
        self._adapter = options.adapter
        self._shape = Parameters(loading.empty_model(model, options.adapter))
        self._jobs: dict[str, _Running] = {}
        self._outbox: deque[Completion] = deque()
        self._partials: list[Partial] = []
        self._out = threading.Condition()
        self._error: BaseException | None = None
        self._busy_s = 0.0
        self._gauge = Gauge()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        self._llm = self._wait(self._load(model, options), LOAD_S)
        self.max_len = self._llm.model_config.max_model_len
        self._open = asyncio.Event()
        self._loop.call_soon_threadsafe(self._open.set)
        self._sweeper = asyncio.run_coroutine_threadsafe(self._sweep(), self._loop)

    def submit(self, job: Job) -> None:
        """See `Engine`."""
        if not 0 < len(job.tokens) < self.max_len:
            raise UserError(f"context has {len(job.tokens)} tokens; accepted: 1 to {self.max_len - 1}")
        self._check()
        running = _Running(job, time.monotonic())
        self._jobs[job.id] = running
        asyncio.run_coroutine_threadsafe(self._sample(running), self._loop)

    def abort(self, ids: Collection[str], reason: str = "aborted") -> None:
        """See `Engine`."""
        asyncio.run_coroutine_threadsafe(self._take_back(list(ids), reason), self._loop)

    def partials(self) -> list[Partial]:
        """See `Engine`."""
        with self._out:
            found, self._partials = self._partials, []
        return found

    def finished(self, timeout: float) -> list[Completion]:
        """See `Engine`."""
        with self._out:
            if not self._outbox and self._error is None:
                self._out.wait(timeout)
            found = list(self._outbox)
            self._outbox.clear()
        if not found:
            self._check()
        return found

    def apply(
        self,
        version: int,
        tensors: Mapping[str, Tensor],
        changed: Mapping[str, Tensor | None] | None = None,
        given: MutableMapping[str, Tensor] | None = None,
    ) -> float:
        """See `Engine`. The file is written before the pause; the pause covers loading it. Nothing is exchanged."""
        self._shape.plan(tensors)
        self._check()
        with self._shared(tensors) as path:
            return self._wait(self._update(version, path), APPLY_S)

    def running(self) -> int:
        """See `Engine`."""
        return len(self._jobs)

    def capacity(self) -> int:
        """See `Engine`."""
        return self.slots

    def kv_use(self) -> float:
        """See `Engine`: as vLLM's scheduler says at every step."""
        return self._gauge.kv_use

    def preempted(self) -> int:
        """See `Engine`."""
        return self._gauge.preempted

    def busy_s(self) -> float:
        """See `Engine`: seconds in which it had work, to a twentieth of a second."""
        return self._busy_s

    def close(self) -> None:
        """See `Engine`."""
        self._sweeper.cancel()
        self._loop.call_soon_threadsafe(self._llm.shutdown)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30.0)

    async def _load(self, model: str, options: EngineOptions) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        given = AsyncEngineArgs(**arguments(model, options))
        llm = AsyncLLM.from_engine_args(given, stat_loggers=[lambda *_: self._gauge])
        if self._adapter is not None:
            with self._shared(self._shape.empty()) as path:
                await llm.add_lora(vllm_adapter.request(path))
                self._lora = vllm_adapter.request(path)
        await llm.update_weight_version(str(self.version))
        return llm

    async def _sample(self, running: _Running) -> None:
        try:
            await self._open.wait()
            self._finish(running, None if running.taken_back else await self._said(running.job))
        except Exception as error:  # noqa: BLE001 - one failed job means a dead engine: whoever asks next is told
            self._die(error)

    async def _said(self, job: Job) -> Any:
        """vLLM's final output of a job."""
        prompt = {"prompt_token_ids": list(job.tokens)}
        last, shown = None, not job.look_at
        stream = self._llm.generate(prompt, self._sampling(job), request_id=job.id, lora_request=self._lora)
        async for said in stream:
            last = said
            if not shown and not said.finished and len(said.outputs[0].token_ids) >= job.look_at:
                shown = True
                self._show(job, said.outputs[0])
        return last

    def _show(self, job: Job, output: Any) -> None:
        n = job.look_at
        beginning = Partial(job.id, list(output.token_ids)[:n], list(output.logprobs.logprobs)[:n])
        with self._out:
            self._partials.append(beginning)
            self._out.notify()

    def _sampling(self, job: Job) -> Any:
        sampling, kinds = job.sampling, self._vllm.sampling_params.RequestOutputKind
        return self._vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p or 1.0,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            max_tokens=min(sampling.max_tokens, self.max_len - len(job.tokens)),
            min_tokens=sampling.min_tokens,
            stop=list(sampling.stop) or None,
            seed=job.seed & (2**63 - 1),
            logprobs=0,
            flat_logprobs=True,
            detokenize=bool(sampling.stop),
            output_kind=kinds.CUMULATIVE if job.look_at else kinds.FINAL_ONLY,
        )

    def _finish(self, running: _Running, said: Any) -> None:
        """Put a completion out. `said` is None for a job that never reached vLLM."""
        del self._jobs[running.job.id]
        now_s = time.monotonic()
        tokens = list(said.outputs[0].token_ids) if said else []
        ending = self._ending(running, said)
        completion = Completion(
            running.job.id,
            tokens,
            list(said.outputs[0].logprobs.logprobs) if tokens else [],
            [(span.start, int(span.version)) for span in said.outputs[0].weight_versions] if tokens else [],
            ending,
            self._text(running.job, said, tokens),
            running.taken_back if ending in TAKEN_BACK else "",
            *_times(running, said, now_s),
        )
        with self._out:
            self._outbox.append(completion)
            self._out.notify()

    def _ending(self, running: _Running, said: Any) -> rollout_pb2.Ending:
        reason = said.outputs[0].finish_reason if said else "abort"
        if reason == "abort" and running.taken_back == "deadline":
            return rollout_pb2.ENDING_EXPIRED
        return ENDINGS[reason]

    def _text(self, job: Job, said: Any, tokens: list[int]) -> str:
        if not tokens:
            return ""
        return said.outputs[0].text if job.sampling.stop else self.tokenizer.decode(tokens, skip_special_tokens=True)

    async def _take_back(self, ids: Collection[str], reason: str) -> None:
        known = [self._jobs[job_id] for job_id in ids if job_id in self._jobs]
        for running in known:
            running.taken_back = running.taken_back or reason
        if known:
            await self._llm.abort([running.job.id for running in known])

    async def _update(self, version: int, path: str) -> float:
        self._open.clear()
        begun = time.perf_counter()
        try:
            await self._llm.pause_generation(mode="keep", clear_cache=self.kv == "recompute")
            await (self._take_weights(version, path) if self._adapter is None else self._take_adapter(version, path))
            await self._llm.resume_generation()
        except Exception as error:
            # Half-applied weights must never sample: an update that fails ends the engine.
            self._die(error)
            raise EngineDied(f"version {version} could not be applied: {error}") from error
        self.version = version
        self._open.set()
        return time.perf_counter() - begun

    async def _take_weights(self, version: int, path: str) -> None:
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        await self._llm.start_weight_update()
        await self._llm.update_weights(WeightTransferUpdateRequest(update_info={"path": path}))
        await self._llm.finish_weight_update(str(version))

    async def _take_adapter(self, version: int, path: str) -> None:
        await self._llm.add_lora(vllm_adapter.request(path, replace=True))
        await self._llm.update_weight_version(str(version))

    def _shared(self, tensors: Mapping[str, Tensor]) -> contextlib.AbstractContextManager[str]:
        """A policy where vLLM's workers can read it: in shared memory, where there is some; gone at the end."""
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        if self._adapter is None:
            return _shared_file(tensors, shared)
        return vllm_adapter.folder(self._adapter, tensors, shared)

    async def _sweep(self) -> None:
        """Deadlines, and the time in which there was work."""
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s, now_ms = time.monotonic(), int(time.time() * 1000)
            if self._jobs and self._open.is_set():
                self._busy_s += now_s - last_s
            last_s = now_s
            late = [job_id for job_id, one in self._jobs.items() if 0 < one.job.deadline_ms < now_ms]
            await self._take_back(late, "deadline")
            # An abort that came before vLLM knew the job was not heard: say it again.
            await self._take_back([job_id for job_id, one in self._jobs.items() if one.taken_back], "")

    def _die(self, error: BaseException) -> None:
        with self._out:
            self._error = self._error or error
            self._out.notify_all()

    def _check(self) -> None:
        if self._error is not None:
            raise EngineDied(f"engine ended: {type(self._error).__name__}: {self._error}") from self._error

    def _wait(self, work: Coroutine[Any, Any, Any], seconds: float) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError as error:
            raise EngineDied(f"vLLM did not answer in {seconds:g} s") from error


@contextlib.contextmanager
def _shared_file(tensors: Mapping[str, Tensor], where: str | None) -> Iterator[str]:
    from safetensors.torch import save_file

    handle, path = tempfile.mkstemp(prefix="sluice-weights-", suffix=".safetensors", dir=where)
    os.close(handle)
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        yield path
    finally:
        Path(path).unlink()


def _times(running: _Running, said: Any, now_s: float) -> tuple[float, float]:
    """(seconds to the first token, from there to the last)."""
    whole_s = now_s - running.submitted_s
    stats = said.metrics if said and said.outputs[0].token_ids else None
    first_s = min(stats.first_token_latency, whole_s) if stats else whole_s
    return first_s, whole_s - first_s
