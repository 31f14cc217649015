"""Will this machine do for this run? Facts that are looked up, and estimates with their arithmetic beside them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from pipeline import claims, parts, recipe, serving
from pipeline.base_model import refuse_missing
from pipeline.client import Client
from pipeline.config import Run, weights_store
from pipeline.data.load import load_all
from pipeline.errors import LogUnavailable, Poison, Retryable, UserError
from pipeline.log import open_log
from pipeline.topics import SERVICES
from sluice.v1 import control_pb2

GB = 1e9
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 4}
ADAM_STATES = 2
DOOR_S, POLL_S = 10.0, 1.0
ANSWERING = ("serving", "stale", "drained", "draining")
PROCESS_BYTES = 0.6 * GB
"""A process that has imported torch, on a CPU; measured."""
ROLLOUT_OVERHEAD = 700
"""Bytes of a rollout and its verdict on the log beside its tokens; measured on the small job."""
TOKEN_BYTES = 9
"""Bytes of one sampled token on the log: id and log-prob; measured on the small job."""
VLLM = ".venv/bin/uv pip install --python .venv/bin/python --constraint constraints.txt --editable '.[torch,vllm]'"
"""What installs vLLM: `make setup` does not, because it brings a torch of its own."""


@dataclass(frozen=True)
class Finding:
    """`good`: does it do; None where it is an estimate only."""

    good: bool | None
    what: str
    found: str


def examine(run: Run) -> list[Finding]:
    """Everything that can be said before the run starts."""
    first = [*_python(run), *_log(run), *_stores(run), *_sandbox(), *_serving(run)]
    return [*first, *_data(run), *_model(run), *_disk(run)]


def reach(run: Run, doors: list[str], wait_s: float = 0.0) -> list[Finding]:
    """Does the log answer, and every door ("service=host:port")? A door that does not serve yet has `wait_s` to do so.

    All doors share that time. Raises `UserError` for a door that names no service, or no address.
    """
    asked = [_named(door) for door in doors]
    deadline = time.monotonic() + wait_s
    return [*_log(run), *_stores(run), *(_door(service, address, deadline) for service, address in asked)]


def _named(door: str) -> tuple[str, str]:
    service, equals, address = door.partition("=")
    if not equals or service not in SERVICES:
        raise UserError(f"--door is {door!r}; accepted: {' or '.join(SERVICES)}, then =host:port")
    return service, address


def _door(service: str, address: str, deadline: float) -> Finding:
    """Asked once, and again until it serves or the time is over."""
    while not (found := _asked(service, address)).good and time.monotonic() + POLL_S < deadline:
        time.sleep(POLL_S)
    return found


def _asked(service: str, address: str) -> Finding:
    client = Client(address)
    status = client.status(timeout=DOOR_S)
    client.close()
    state = control_pb2.WorkerState.Name(status.state).removeprefix("WORKER_STATE_").lower() if status else ""
    said = f"{address}: {status.worker_id} is {state} {status.reason}" if status else f"{address} does not answer"
    return Finding(state in ANSWERING, service, said.rstrip())


def _python(run: Run) -> list[Finding]:
    wanted = ["torch", "transformers", "safetensors"]
    wanted += ["vllm"] if run.generation.engine == "vllm" else []
    wanted += ["peft"] if run.model.policy == "lora" else []
    wanted += ["ray"] if run.learning.ray else []
    found = [Finding(sys.version_info >= (3, 11), "Python", sys.version.split()[0] + " (3.11 or newer)")]
    for name in wanted:
        present = importlib.util.find_spec(name) is not None
        cure = {"vllm": VLLM, "ray": "pip install 'sluice[ray]'"}.get(name, "make setup")
        found.append(Finding(present, name, "installed" if present else f"missing: `{cure}` installs it"))
    return found


def _log(run: Run) -> list[Finding]:
    if run.log == "embedded":
        return [Finding(True, "log", "embedded: a file in the run directory, this machine only")]
    try:
        log = open_log(run.log)
        names = log.topics(f"{run.prefix}.{run.run}.")
        log.close()
    except (LogUnavailable, UserError) as error:
        return [Finding(False, "log", str(error))]
    return [Finding(True, "log", f"{run.log} answers; {len(names)} topics of this run")]


def _stores(run: Run) -> list[Finding]:
    """Where large payloads go, tried with one byte; nothing where that is a folder of the run directory."""
    wanted = {"claims": run.claims, "weights.store": weights_store(run)}
    return [_store(name, url) for name, url in wanted.items() if url]


def _store(name: str, url: str) -> Finding:
    try:
        claims.check(url)
        claim = claims.put(url, b"doctor")
        claims.get(claim, url)
        claims.remove(claim, url)
    except (UserError, Retryable, Poison) as error:
        return Finding(False, name, str(error))
    return Finding(True, name, f"{url} takes a payload and gives it back")


def _sandbox() -> list[Finding]:
    """Which wall stands. A missing one is no fault of the machine: only prompts that run code need them."""
    walls = parts.find("verification.check", "code_python").walls()
    return [
        Finding(True if stands else None, f"sandbox: {name}", found if stands else f"missing, code is refused: {found}")
        for name, stands, found in walls
    ]


def _serving(run: Run) -> list[Finding]:
    """How new weights reach the engine. What no machine serves, the run file was refused for (`docs/serving.md`)."""
    policy = "a LoRA adapter, beside the base" if run.model.policy == "lora" else "every weight"
    if run.generation.quantization == "none":
        return [Finding(True, "weights", f"{policy}, to {run.generation.engine}")]
    gpu = Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()
    return [Finding(gpu, "weights", f"{policy}, to {run.generation.engine} in fp8" if gpu else serving.NEEDS_GPU)]


def _data(run: Run) -> list[Finding]:
    """Can the prompt sources be built? Their rows are not read."""
    try:
        load_all(run.data.sources)
    except UserError as error:
        return [Finding(False, "data", str(error))]
    return [Finding(True, "data", ", ".join(str(source["kind"]) for source in run.data.sources))]


def _model(run: Run) -> list[Finding]:
    try:
        refuse_missing(run.model.source)
    except UserError as error:
        return [Finding(False, "model", str(error))]
    parameters = _parameters(run)
    if parameters is None:
        return [Finding(None, "model", f"{run.model.source}: size known after download")]
    needs_reference = "ref_logp" in json.dumps(recipe.compose(run).model_dump(mode="json"))
    trained = _trained(run)
    beside = 1 + ADAM_STATES + needs_reference  # gradients, moments, a reference policy
    travels = BYTES[run.generation.dtype if run.weights.dtype == "auto" else run.weights.dtype]
    baseline = travels * (run.weights.anchor_every > 1)
    learner = parameters * BYTES[run.model.dtype] + trained * (BYTES[run.model.dtype] * beside + baseline)
    worker = run.generation.replicas * parameters * BYTES[run.generation.dtype] + trained * travels
    learner, worker, ranks = learner + PROCESS_BYTES, worker + PROCESS_BYTES, run.learning.ranks
    total = learner * (1 if run.learning.ray else ranks) + worker * run.generation.workers
    room = psutil.virtual_memory().available
    return [
        Finding(None, "model", f"{parameters:,} parameters, {trained:,} of them trained"),
        Finding(
            None,
            "memory of learning" if ranks == 1 else f"memory of each of {ranks} learning ranks",
            f"{learner / GB:.1f} GB: weights, gradients, {beside - 1} more copies of what is trained, the process",
        ),
        Finding(None, "memory of a generation worker", f"{worker / GB:.1f} GB and its KV cache"),
        Finding(total < room, "memory in all", f"{total / GB:.1f} GB of {room / GB:.1f} GB free"),
    ]


def _parameters(run: Run) -> int | None:
    shape = _shape(run)
    return shape and _transformer(*shape)


def _trained(run: Run) -> int:
    """Parameters that are trained and travel; of an adapter as many as on all linear layers."""
    shape = _shape(run)
    if shape is None:
        return 0
    return _transformer(*shape) if run.model.policy == "full" else _adapter(*shape[:5], run.model.lora.rank)


def _shape(run: Run) -> tuple[int, int, int, int, int, int] | None:
    """Layers, hidden, intermediate, heads, kv heads, vocabulary."""
    if run.model.source.startswith("builtin:"):
        sizes = {"layers": 2, "hidden": 128, "intermediate": 512, "heads": 4, "kv_heads": 2} | run.model.tiny
        return sizes["layers"], sizes["hidden"], sizes["intermediate"], sizes["heads"], sizes["kv_heads"], 98
    file = Path(run.model.source) / "config.json"
    if not file.is_file():
        return None
    shape: dict[str, Any] = json.loads(file.read_text())
    heads = shape["num_attention_heads"]
    kv = shape.get("num_key_value_heads", heads)
    layers, hidden = shape["num_hidden_layers"], shape["hidden_size"]
    return layers, hidden, shape["intermediate_size"], heads, kv, shape["vocab_size"]


def _transformer(layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, vocabulary: int) -> int:
    """Parameters of a Llama-like decoder with tied embeddings.

    >>> _transformer(2, 128, 512, 4, 2, 98)
    504704
    """
    attention = 2 * hidden * hidden * (1 + kv_heads / heads)
    return int(vocabulary * hidden + layers * (attention + 3 * hidden * intermediate + 2 * hidden) + hidden)


def _adapter(layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, rank: int) -> int:
    """Parameters of a LoRA adapter on every linear layer of such a decoder.

    >>> _adapter(2, 128, 512, 4, 2, 16)
    90112
    """
    attention = 2 * 2 * hidden + 2 * hidden * (1 + kv_heads / heads)
    return int(layers * rank * (attention + 3 * (hidden + intermediate)))


def _disk(run: Run) -> list[Finding]:
    budget = recipe.compose(run).budget
    n = parts.load("difficulty.budget", budget.name, **budget.knobs).typical
    rollouts = run.learning.steps * run.learning.batch_groups * n
    log_bytes = rollouts * (ROLLOUT_OVERHEAD + TOKEN_BYTES * run.generation.max_tokens)
    trained = _trained(run)
    log_bytes += 3 * trained * BYTES[run.generation.dtype]
    checkpoints = (run.learning.keep_checkpoints + 1) * trained * BYTES[run.model.dtype] * (1 + ADAM_STATES)
    free = shutil.disk_usage(".").free
    return [
        Finding(
            None, "rollouts", f"{rollouts:,}: {run.learning.steps} steps of {run.learning.batch_groups} groups of {n}"
        ),
        Finding(None, "log", f"at most {log_bytes / GB:.2f} GB: rollouts, verdicts, two anchors"),
        Finding(
            None,
            "checkpoints",
            f"{checkpoints / GB:.2f} GB: weights and optimiser, {run.learning.keep_checkpoints} kept",
        ),
        Finding(
            log_bytes + checkpoints < free,
            "disk",
            f"{(log_bytes + checkpoints) / GB:.2f} GB of {free / GB:.1f} GB free",
        ),
    ]
