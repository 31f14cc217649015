"""Evaluate a run from outside: through the services that are up, or through two that are started for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline import topics
from pipeline.client import Client
from pipeline.data.load import load_all
from pipeline.data.register import held_out
from pipeline.errors import NotReady, UserError
from pipeline.evaluate import Plan, evaluate
from pipeline.processes import Processes
from pipeline.rundir import RunDir
from pipeline.supervisor import ANSWERING, write
from pipeline.view import Watcher
from sluice.v1 import control_pb2, prompt_pb2

READY_S = 180.0


def evaluate_run(
    directory: RunDir, name: str, sources: list[dict[str, Any]], prompts: int, samples: int, temperature: float
) -> control_pb2.Evaluation:
    """Evaluate the newest policy and write the result to the run's `evals` topic."""
    if samples < 1 or prompts < 1 or temperature < 0:
        raise UserError(
            f"--samples {samples}, --prompts {prompts}, --temperature {temperature}; accepted: 1, 1 and 0 or more"
        )
    run, log, names = directory.run(), directory.open_log(), directory.names()
    try:
        chosen = (_from(sources) if sources else held_out(log, names))[:prompts]
        watcher = Watcher(log, names)
        plan = Plan(
            name,
            chosen,
            samples if temperature else 1,
            temperature,
            run.generation.max_tokens,
            tuple(run.generation.stop),
            run.seed + 1,
        )
        with _doors(directory, watcher) as (generation, verification):
            found = evaluate(generation, verification, plan, watcher.look().step)
        write(log, names, "eval", "evals", run.run, found)
        return found
    finally:
        log.close()


def _from(sources: list[dict[str, Any]]) -> list[prompt_pb2.Prompt]:
    return [prompt for source in load_all(sources) for prompt in source.prompts()]


@contextmanager
def _doors(directory: RunDir, watcher: Watcher) -> Iterator[tuple[Client, Client]]:
    """Generation's and verification's doors; services that nobody runs are started and ended here."""
    processes = Processes(directory)
    addresses = {}
    try:
        for service in (topics.GENERATION, topics.VERIFICATION):
            answering = [one.address for one in watcher.look().of(service) if _answers(one.address)]
            addresses[service] = answering[0] if answering else _start(processes, watcher, service)
        clients = tuple(Client(addresses[service]) for service in (topics.GENERATION, topics.VERIFICATION))
        yield clients[0], clients[1]
        for client in clients:
            client.close()
    finally:
        processes.end()


def _answers(address: str) -> bool:
    client = Client(address)
    status = client.status(timeout=1.0)
    client.close()
    return status is not None and status.state in ANSWERING


def _start(processes: Processes, watcher: Watcher, service: str) -> str:
    worker_id = f"{service}-eval"
    since, deadline = time.time() * 1000, time.monotonic() + READY_S
    processes.start(service, worker_id)
    while time.monotonic() < deadline:
        processes.revive()
        status = watcher.look().workers.get(worker_id)
        if status and status.written_ms >= since and status.state in ANSWERING:
            return status.address
    raise NotReady(f"{service} is not ready after {READY_S:.0f} s; its last words:\n{processes.last_words(worker_id)}")
