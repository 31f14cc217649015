"""Runs checks: in the service's process for those that are bounded, in a worker process for the rest.

A worker reads jobs from a pipe and answers in their order. The kernel kills it (SIGPROF) when a job has used up its CPU
limit, whatever it is doing; its address space is limited; what it says is JSON, never a pickle.
"""

from __future__ import annotations

import contextlib
import gc
import json
import resource
import signal
import time
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

from pipeline import parts
from pipeline.errors import UserError
from services.verification import finding
from services.verification.finding import Finding, infra_error, timeout
from sluice.v1 import prompt_pb2

PRELOAD = (
    "services.verification.worker",
    "services.verification.check.code_python",
    "services.verification.check.math",
    "services.verification.check.reasoning_gym",
    "math_verify",
    "reasoning_gym",
    "services.verification.preload",
)
"""What the fork server imports once, so that a worker starts in milliseconds."""
READY = b"ready"
"""What a worker says first: from then on its jobs' time counts."""
FLUSH_S = 0.005
"""Findings are sent together that were made within this time: a message costs more than a cheap check."""


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to check. `knobs_json`: the check's knobs. `cpu_s`, `wall_s`: what it may take, seconds."""

    knobs_json: str
    answer: str
    check: str
    spec_answer: str
    spec_json: str
    cpu_s: float = 2.0
    wall_s: float = 10.0


@lru_cache(maxsize=256)
def build(check: str, knobs_json: str) -> Any:
    """The check of that name with these knobs. Raises `UserError` when there is no such check or knob."""
    return parts.load("verification.check", check, **json.loads(knobs_json))


def run(job: Job) -> Finding:
    """Check one answer here and now. A check that raises has failed: that is never the answer's fault."""
    started, cpu = time.perf_counter(), time.thread_time()
    spec = prompt_pb2.CheckSpec(check=job.check, answer=job.spec_answer, spec_json=job.spec_json)
    try:
        found = build(job.check, job.knobs_json)(job.answer, spec)
    except UserError as error:
        found = infra_error("bad_spec", str(error))
    except MemoryError:
        found = timeout("memory_limit")
    except Exception as error:  # noqa: BLE001  # whatever a check raises becomes a verdict that says so
        found = infra_error("check_raised", f"{type(error).__name__}: {error}"[:500])
    return found.took(time.perf_counter() - started, time.thread_time() - cpu)


def encode(jobs: list[Job]) -> bytes:
    """Jobs as JSON, for the way into a worker."""
    return json.dumps([[getattr(job, name) for name in Job.__slots__] for job in jobs]).encode()


def serve(pipe: Connection, at: Any, memory_mb: int) -> None:
    """A worker's life: lists of jobs in, findings out in their order, until the service hangs up.

    `at` is shared memory: the place in the list of the job being done, for whoever has to bury the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _limit_memory(memory_mb)
    # What the fork server imported lasts: to look through it for garbage would copy all its pages, in every worker.
    gc.freeze()
    pipe.send_bytes(READY)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            _work_off([Job(*fields) for fields in json.loads(pipe.recv_bytes())], pipe, at)


def _work_off(jobs: list[Job], pipe: Connection, at: Any) -> None:
    done: list[Finding] = []
    flushed = time.monotonic()
    for place, job in enumerate(jobs):
        at.value = place
        _limit_cpu(job.cpu_s)
        done.append(run(job))
        _limit_cpu(0.0)
        if place + 1 == len(jobs) or time.monotonic() - flushed > FLUSH_S:
            pipe.send_bytes(finding.encode(done))
            done, flushed = [], time.monotonic()


def _limit_cpu(seconds: float) -> None:
    """End this process after so much more CPU time; 0 takes the limit away. RLIMIT_CPU stands behind the timer."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    if seconds:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = int(time.process_time() + seconds) + 3
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


def _limit_memory(memory_mb: int) -> None:
    """Let the address space grow by so much from here. macOS has no such limit and says so."""
    pages = _address_space_bytes()
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (pages + memory_mb * 2**20, resource.RLIM_INFINITY))


def _address_space_bytes() -> int:
    import psutil

    return psutil.Process().memory_info().vms
