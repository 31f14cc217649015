"""The transformers engine against plain `model.generate`: the same requests, lengths with a long tail, equal slots.

`generate` takes the requests as they come, as many at a time as there are slots, and a batch ends with its longest row.
The engine gives a slot that is free to the next request. Every request is sampled to its own length (no token ends an
answer), at temperature 1, on one thread. Tokens count where a request asked for them. Then the engine with new weights
every second, 1 % of them changed.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from services.generation.engine.api import EngineOptions, Job
from services.generation.engine.transformers import TransformersEngine
from sluice.v1 import prompt_pb2
from tests.bench.table import machine, middle, table
from tests.services.generation.conftest import make_model, make_tokenizer

REQUESTS = 256
SLOTS = 16
CONTEXT = 16
MEAN = 24
SIGMA = 1.0
ROUNDS = 3
LONGEST = 512


def main() -> str:
    """The table."""
    torch.set_num_threads(1)
    length_N = lengths()
    context_NT = np.random.default_rng(1).integers(2, 100, (REQUESTS, CONTEXT))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = save(Path(folder))
        engine = TransformersEngine(folder, EngineOptions(slots=SLOTS, threads=1), tokenizer)
        plain = AutoModelForCausalLM.from_pretrained(folder).eval()
        ways = {
            "model.generate": lambda: generate(plain, context_NT, length_N),
            "transformers engine": lambda: engine_run(engine, context_NT, length_N),
            "the same, an update every second": lambda: updated_run(engine, context_NT, length_N, still_s),
        }
        still_s: list[float] = []
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                begun = time.perf_counter()
                way()
                rates[name].append(length_N.sum() / (time.perf_counter() - begun))
        engine.close()
    base = median(rates["model.generate"])
    rows = [[name, middle(found), median(found) / base] for name, found in rates.items()]
    said = (
        f"{REQUESTS} requests on {SLOTS} slots, lengths lognormal with sigma {SIGMA:g}: {length_N.mean():.0f} tokens "
        f"in the mean, {length_N.max()} at most. Qwen2 with 4 layers of width 256, float32, one thread. Median of "
        f"{ROUNDS}, in turns. {len(still_s)} updates, for each of which generation stood still for "
        f"{1000 * median(still_s):.2g} ms in the median. {machine()}."
    )
    return "\n\n".join(["# The transformers engine", said, table(["way", "tokens/s", "of generate"], rows)])


def lengths() -> np.ndarray:
    """Tokens of every request: at least 1; the longest is 8 times the mean or more."""
    found = np.random.default_rng(0).lognormal(np.log(MEAN) - SIGMA**2 / 2, SIGMA, REQUESTS)
    length_N = np.clip(np.ceil(found), 1, LONGEST - CONTEXT).astype(int)
    assert length_N.max() >= 8 * length_N.mean()
    return length_N


def save(folder: Path) -> PreTrainedTokenizerBase:
    """A random model and a tokenizer that know no end of an answer."""
    size = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "initializer_range": 0.02}
    model = make_model(0, **size, max_position_embeddings=LONGEST, eos_token_id=None)
    model.save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    return tokenizer


def generate(model: torch.nn.Module, context_NT: np.ndarray, length_N: np.ndarray) -> None:
    """Batch after batch, each to its longest row."""
    for begin in range(0, len(length_N), SLOTS):
        ids = torch.from_numpy(context_NT[begin : begin + SLOTS])
        longest = int(length_N[begin : begin + SLOTS].max())
        mask = torch.ones_like(ids)
        made = model.generate(ids, attention_mask=mask, max_new_tokens=longest, do_sample=True, top_k=0, pad_token_id=0)
        assert made.shape[1] == CONTEXT + longest


def engine_run(engine: TransformersEngine, context_NT: np.ndarray, length_N: np.ndarray) -> None:
    """All at once; the engine has its own order."""
    for at, (context, length) in enumerate(zip(context_NT.tolist(), length_N.tolist(), strict=True)):
        sampling = prompt_pb2.SamplingParams(temperature=1, top_p=1, max_tokens=length)
        engine.submit(Job(str(at), tuple(context), sampling, seed=at))
    done: list[int] = []
    while len(done) < len(length_N):
        done += [len(one.tokens) for one in engine.finished(1.0)]
    assert sum(done) == length_N.sum()


def updated_run(engine: TransformersEngine, context_NT: np.ndarray, length_N: np.ndarray, still_s: list[float]) -> None:
    """As `engine_run`, with new weights every second."""
    with updates(engine, still_s):
        engine_run(engine, context_NT, length_N)


@contextmanager
def updates(engine: TransformersEngine, still_s: list[float]) -> Iterator[None]:
    """Other values at 1 % of the places, every second."""
    held = engine._decoder.model.named_parameters()
    tensors = {name: parameter.detach().clone() for name, parameter in held}
    changed = {name: torch.randperm(value.numel())[: value.numel() // 100] for name, value in tensors.items()}
    over = threading.Event()

    def run() -> None:
        while not over.wait(1.0):
            for name, position_K in changed.items():
                tensors[name].view(-1)[position_K] *= 1.001
            given: dict[str, torch.Tensor] = {}
            still_s.append(engine.apply(engine.version + 1, tensors, changed, given))
            for name, memory in given.items():  # what the reader does with memory that it got in exchange
                position_K = changed[name]
                memory.view(-1)[position_K] = tensors[name].view(-1)[position_K]
                tensors[name] = memory

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join()
