"""Several engines behind one: what one would say, and what is left when some die."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from pipeline.errors import UserError
from services.generation.engine.api import Completion, Engine, EngineDied, EngineOptions, Job
from services.generation.engine.open import open_engine
from services.generation.engine.replicas import Replicas
from services.generation.engine.transformers import TransformersEngine
from sluice.v1 import prompt_pb2


@pytest.fixture
def pair(tokenizer, tiny_model) -> Iterator[Replicas]:
    """Two engines of 4 slots each."""
    engines = [TransformersEngine(tiny_model(0), EngineOptions(slots=4), tokenizer) for _ in range(2)]
    found = Replicas(engines)
    yield found
    found.close()


def jobs(number: int, max_tokens: int = 12) -> list[Job]:
    sampling = prompt_pb2.SamplingParams(temperature=1.0, top_p=1.0, max_tokens=max_tokens)
    return [Job(f"job-{i}", (5, 6, 7 + i), sampling, seed=i) for i in range(number)]


def collect(engine: Engine, number: int, seconds: float = 20.0) -> dict[str, Completion]:
    found: dict[str, Completion] = {}
    until = time.monotonic() + seconds
    while len(found) < number and time.monotonic() < until:
        found |= {one.id: one for one in engine.finished(0.2)}
    assert len(found) == number
    return found


def alone(tokenizer, model, wanted: list[Job]) -> dict[str, list[int]]:
    """The tokens that a lone engine says."""
    engine = TransformersEngine(model, EngineOptions(slots=4), tokenizer)
    for job in wanted:
        engine.submit(job)
    found = {name: one.tokens for name, one in collect(engine, len(wanted)).items()}
    engine.close()
    return found


def halt(engine: TransformersEngine) -> threading.Event:
    """Let an engine take no step until the event is set."""
    release = threading.Event()
    engine._interrupts = lambda: release.wait(10)
    return release


def kill(engine: TransformersEngine) -> None:
    engine._turn = None
    with engine._lock:
        engine._lock.notify()


def test_jobs_are_spread_and_say_what_a_lone_engine_says(pair, tokenizer, tiny_model):
    release = [halt(engine) for engine in pair.engines]
    wanted = jobs(10)
    for job in wanted:
        pair.submit(job)
    assert [engine.running() for engine in pair.engines] == [5, 5] and pair.running() == 10
    assert (pair.capacity(), pair.replicas, pair.version) == (8, 2, 0)
    for event in release:
        event.set()
    for engine in pair.engines:
        del engine._interrupts
    found = collect(pair, 10)
    assert {name: one.tokens for name, one in found.items()} == alone(tokenizer, tiny_model(0), wanted)
    assert pair.running() == 0 and pair.busy_s() > 0 and pair.preempted() == 0


def test_new_weights_reach_every_replica_and_each_stamps_its_own_version(pair, tiny_model):
    new = tiny_model(1).state_dict()
    pair.engines[0].apply(1, new)
    assert pair.version == 0
    for job in jobs(8):
        pair.submit(job)
    assert {one.spans[0][1] for one in collect(pair, 8).values()} == {0, 1}
    assert pair.apply(1, new, {"lm_head.weight": torch.zeros(0, dtype=torch.int64)}) >= 0
    assert [engine.version for engine in pair.engines] == [1, 1] and pair.version == 1


def test_what_changed_is_told_only_to_replicas_of_the_version_it_is_relative_to(pair, tiny_model):
    one, two = tiny_model(1), tiny_model(2)
    pair.engines[1].apply(7, one.state_dict())
    nothing = {name: torch.zeros(0, dtype=torch.int64) for name, _ in two.named_parameters()}
    pair.apply(8, dict(two.named_parameters()), nothing)
    served = [dict(engine._decoder.model.named_parameters()) for engine in pair.engines]
    assert torch.equal(served[1]["model.norm.weight"], two.model.norm.weight)
    assert torch.equal(served[1]["model.embed_tokens.weight"], two.model.embed_tokens.weight)
    assert torch.equal(served[0]["model.embed_tokens.weight"], tiny_model(0).model.embed_tokens.weight)


def test_what_a_dead_replica_held_is_sampled_by_the_others(pair, tokenizer, tiny_model):
    release = halt(pair.engines[0])
    wanted = jobs(12)
    for job in wanted:
        pair.submit(job)
    kill(pair.engines[0])
    release.set()
    found = collect(pair, 12)
    assert {name: one.tokens for name, one in found.items()} == alone(tokenizer, tiny_model(0), wanted)
    assert (pair.replicas, pair.capacity(), pair.running()) == (1, 4, 0)
    pair.submit(Job("after", (5,), wanted[0].sampling, seed=1))
    assert collect(pair, 1)["after"].tokens


def test_a_replica_that_dies_at_an_update_does_not_hold_up_the_others(pair, tiny_model):
    kill(pair.engines[0])
    pair.apply(3, tiny_model(1).state_dict())
    assert (pair.version, pair.replicas) == (3, 1)


def test_when_none_is_left_the_whole_is_dead_and_says_of_what(pair, tiny_model):
    for engine in pair.engines:
        kill(engine)
    with pytest.raises(EngineDied, match="replica 0: engine ended: TypeError.*; replica 1: engine ended"):
        collect(pair, 1)
    with pytest.raises(EngineDied):
        pair.submit(jobs(1)[0])
    with pytest.raises(EngineDied):
        pair.apply(1, tiny_model(1).state_dict())
    assert (pair.replicas, pair.capacity()) == (0, 0)


def test_beginnings_are_shown_by_whichever_replica_has_the_job(pair):
    sampling = prompt_pb2.SamplingParams(temperature=0.0, top_p=1.0, max_tokens=12, min_tokens=12)
    for i in range(6):
        pair.submit(Job(f"job-{i}", (5, 6, 7), sampling, seed=i, train=False, look_at=3))
    found = collect(pair, 6)
    shown = pair.partials()
    assert sorted(one.id for one in shown) == sorted(found) and pair.partials() == []
    assert all(one.tokens == found[one.id].tokens[:3] for one in shown)


def test_an_abort_reaches_the_replica_that_has_the_job(pair):
    for job in jobs(8, max_tokens=120):
        pair.submit(job)
    pair.abort([f"job-{i}" for i in range(8)] + ["unknown"])
    assert len(collect(pair, 8)) == 8


def test_replicas_are_opened_from_a_folder_and_tensor_parallel_is_refused(tmp_path, tokenizer, tiny_model):
    tiny_model(0).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = open_engine("transformers", str(tmp_path), EngineOptions(slots=2, replicas=3, device="cpu"))
    assert (engine.replicas, engine.capacity()) == (3, 6)
    engine.close()
    with pytest.raises(UserError, match="tensor_parallel is 2 with engine transformers; accepted: 1, or engine: vllm"):
        open_engine("transformers", str(tmp_path), EngineOptions(tensor_parallel=2))
