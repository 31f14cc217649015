"""Weights as deltas: how fast they are made and taken, how small they are, how long generation stands still.

A synthetic policy in bfloat16 of which 1 % of the values changed, at random places; times are of one thread's CPU, so
that neighbours on the machine count less. Beside it the same memory copied. Then a real small policy, trained with
AdamW at three learning rates on random rewards: how much of it changes from one step to the next.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from pipeline import weights
from pipeline.held import Held
from pipeline.log.api import Record
from pipeline.records import decode
from services.generation.engine.parameters import Parameters, write
from services.learning import tiny
from services.learning.baseline import Plain
from services.learning.publish import Plan, Publisher
from tests.bench.table import machine, table

PARAMETERS = 512 * 2**20
TENSORS = 64
SHARE = 0.01
ROUNDS = 3
RATES = (1e-6, 3e-6, 1e-5)
STEPS = 8
GB = 1e9


def main() -> str:
    """Both tables."""
    torch.set_num_threads(1)
    return "\n\n".join(["# Weights as deltas", synthetic(), density()])


def clocked(work: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


def synthetic() -> str:
    """One large policy."""
    rng = np.random.default_rng(0)
    size = PARAMETERS // TENSORS
    policy = {f"layer_{at}": Plain("bfloat16", (size // 2048, 2048), rows(rng, size)) for at in range(TENSORS)}
    publisher = Publisher("weights", "main", Plan(anchor_every=1000))
    first = take(publisher, policy, {})
    held = Held()
    held.begin(first[0])
    for name, tensor in policy.items():
        held.tensors[name][:] = tensor.values
    held.wrote_all()
    held.finish(first[0])
    held.taken()
    dense = 2 * PARAMETERS
    times: dict[str, list[float]] = {}
    coded = 0
    extra = 0
    for _ in range(ROUNDS):
        for tensor in policy.values():
            at = np.unique(rng.integers(0, size, int(1.005 * SHARE * size)))
            tensor.values[at] ^= 1
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seen: dict[str, float] = {}
        manifest, chunks = take(publisher, policy, seen)
        extra = max(extra, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
        coded = manifest.parts[-1].size_bytes
        held.begin(manifest)
        seen["decode and write"] = clocked(lambda made=chunks: [held.take(chunk) for chunk in made])
        seen["decode, write, digests, finite"] = seen["decode and write"] + clocked(lambda m=manifest: held.finish(m))
        seen |= applied(held)
        held.taken()
        for name, seconds in seen.items():
            times.setdefault(name, []).append(seconds)
    rate = {name: dense / median(seconds) / GB for name, seconds in times.items()}
    rows_ = [[name, found, found / rate["memory copy"]] for name, found in rate.items()]
    said = (
        f"{PARAMETERS / 1e6:.0f} million values, {SHARE:.0%} changed: {coded / 1e6:.1f} MB of {dense / 1e6:.0f} "
        f"({coded / dense:.2%}). Peak memory while encoding, beyond the baseline: {extra / 1e6:.0f} MB. "
        f"Median of {ROUNDS}. {machine()}."
    )
    return "\n\n".join([said, table(["what", "GB/s of dense weights, one core", "of a copy"], rows_)])


def rows(rng: np.random.Generator, size: int) -> np.ndarray:
    """Weights as a model's: normal, in bfloat16."""
    values = rng.standard_normal(size, dtype=np.float32) * np.float32(0.02)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def take(publisher: Publisher, policy: dict[str, Plain], seen: dict[str, float]):
    """Publish; the manifest and its chunks."""
    chunks: list[weights.weights_pb2.WeightChunk] = []
    publication = publisher.begin(1)

    def write() -> None:
        transactions = publication.write(policy.items())
        sends = next(transactions, None)
        while sends is not None:
            if seen is not None and publisher.version:
                chunks.extend(decode(Record(s.topic, 0, 0, s.key, s.value, s.headers, 0)) for s in sends)
            try:
                sends = transactions.send([("weights", 0, at) for at in range(len(sends))])
            except StopIteration:
                return

    seen["encode, digests"] = clocked(write)
    manifest = publication.manifest(1, 0)
    publisher.announced(manifest)
    copies = [np.empty_like(tensor.values) for tensor in list(policy.values())[:1]]
    one = next(iter(policy.values())).values
    seen["memory copy"] = len(policy) * min(clocked(lambda: np.copyto(copies[0], one)) for _ in range(3))
    seen["digest alone"] = len(policy) * clocked(lambda: weights.tensor_digest(one))
    return manifest, chunks


def applied(held: Held) -> dict[str, float]:
    """The pause: what changed copied into a model in place, and all of it."""
    names = list(held.tensors)[:8]
    source = {name: torch.from_numpy(held.tensors[name].view(np.int16)).view(torch.bfloat16) for name in names}
    model = torch.nn.ParameterDict({name: torch.zeros_like(source[name]) for name in names}).requires_grad_(False)
    position_K = {name: torch.from_numpy(np.concatenate(held.changed[name] or [])) for name in names}
    model_parameters = Parameters(model)
    given: dict[str, torch.Tensor] = {}
    whole, changed = model_parameters.plan(source), model_parameters.plan(source, position_K)
    exchange = model_parameters.plan(source, position_K, given)
    scale = len(held.tensors) / len(names)
    write(whole)
    found = {"pause, all tensors copied": scale * median(clocked(lambda: write(whole)) for _ in range(3))}
    found["pause, delta written in place"] = scale * clocked(lambda: write(changed))
    found["pause, memory exchanged"] = scale * clocked(lambda: write(exchange))
    return found


def density() -> str:
    """A real policy, one step after another."""
    found = []
    for rate in RATES:
        shares, sizes = trained(rate)
        found.append([f"{rate:g}", f"{median(shares):.2%}", f"{max(shares):.2%}", f"{median(sizes):.2%}"])
    header = ["learning rate", "values changed, median", "most", "bytes of dense, median"]
    said = f"The builtin tiny model in bfloat16, {STEPS} AdamW steps on random advantages, one version a step."
    return "\n\n".join([said, table(header, found)])


def trained(rate: float) -> tuple[list[float], list[float]]:
    """(density, coded share) of every step's delta but the first, in which Adam moves every value by the whole rate."""
    torch.manual_seed(0)
    model = tiny.new_model(tiny.TinyModel())
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    publisher = Publisher("weights", "main", Plan(anchor_every=1000, dense_above=1.0))
    shares, sizes = [], []
    for step in range(STEPS + 2):
        publication = publisher.begin(1)
        cast = {name: parameter.detach().to(torch.bfloat16) for name, parameter in sorted(model.named_parameters())}
        transactions = publication.write(cast.items())
        sends = next(transactions, None)
        while sends is not None:
            try:
                sends = transactions.send([("weights", 0, at) for at in range(len(sends))])
            except StopIteration:
                break
        manifest = publication.manifest(step, 0)
        publisher.announced(manifest)
        if step > 1:
            shares.append(publisher.density)
            sizes.append(publisher.size_bytes / manifest.dense_bytes)
        tokens = torch.randint(2, 90, (64, 16))
        logp = torch.log_softmax(model(tokens).logits[:, :-1], -1).gather(-1, tokens[:, 1:, None])[..., 0]
        optimizer.zero_grad()
        (-(logp.sum(1) * torch.randn(64)).mean()).backward()
        optimizer.step()
    return shares, sizes
