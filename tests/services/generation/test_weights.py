"""Weights from the log: what is published is what is served, and nothing else ever is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from pipeline import records, weights
from pipeline.errors import Lost
from pipeline.log import Log
from pipeline.metrics import Meter
from pipeline.topics import Names
from services.generation.engine.api import EngineOptions
from services.generation.engine.transformers import TransformersEngine
from services.generation.updater import Updater
from services.generation.versions import Versions
from services.generation.weights import WeightReader
from sluice.v1 import weights_pb2

NAMES = Names("sluice", "test")
Change = Callable[[list[weights_pb2.WeightChunk]], None]


@pytest.fixture
def engine(tokenizer, tiny_model) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(tiny_model(0), EngineOptions(slots=4), tokenizer)
    yield engine
    engine.close()


def publish(
    log: Log,
    state: dict[str, torch.Tensor],
    version: int,
    epoch: int = 1,
    change: Change = lambda chunks: None,
) -> weights_pb2.WeightManifest:
    """Write a policy as the learner does: chunks, then the manifest; `change` spoils chunks."""
    payloads = {name: tensor.contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in state.items()}
    specs = [
        weights_pb2.TensorSpec(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tensor.shape)
        for name, tensor in state.items()
    ]
    chunks = [
        chunk
        for spec in specs
        for chunk in weights.encode_dense(
            weights.Range("main", version, epoch, spec.name, spec.dtype, tuple(spec.shape)), payloads[spec.name]
        )
    ]
    change(chunks)
    writer = log.writer("test.publish")
    topic = NAMES.topic("weights")
    with writer.transaction() as transaction:
        transaction.sends.extend(records.encode(topic, "main", chunk) for chunk in chunks)
    part = weights_pb2.WeightPart(
        version=version,
        anchor=True,
        topic=topic,
        first_offset=transaction.written[0][2],
        last_offset=transaction.written[-1][2],
        chunks=len(chunks),
        result_sha256=weights.policy_digest({name: weights.tensor_digest(data) for name, data in payloads.items()}),
    )
    manifest = weights_pb2.WeightManifest(policy_id="main", version=version, epoch=epoch, parts=[part], tensors=specs)
    manifest.published_ms = int(time.time() * 1000)
    with writer.transaction() as transaction:
        transaction.sends.append(records.encode(NAMES.topic("weights-manifest"), "main", manifest))
    writer.close()
    return manifest


def state_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.data for name, parameter in model.named_parameters()}


def updater_of(log: Log, engine: TransformersEngine) -> Updater:
    return Updater(WeightReader(log, NAMES, "main"), Versions(engine, 2), Meter("generation", "worker-0"))


def served(engine: TransformersEngine) -> dict[str, torch.Tensor]:
    return state_of(engine._decoder.model)


def assert_serves(engine: TransformersEngine, version: int, model: torch.nn.Module) -> None:
    assert engine.version == version
    assert all(torch.equal(served(engine)[name], tensor) for name, tensor in state_of(model).items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [(), (3,), (700_001,), (1000, 512), (3, 5, 7), (2, 3000, 400), (0, 4)])
def test_a_tensor_comes_back_bit_for_bit_in_chunks_that_a_record_can_carry(dtype, shape):
    size = int(np.prod(shape)) * weights.DTYPE_BYTES[dtype]
    payload = np.random.default_rng(1).bytes(size)
    chunks = list(weights.encode_dense(weights.Range("main", 3, 1, "w", dtype, shape), payload))
    assert all(len(chunk.SerializeToString()) <= 900_000 for chunk in chunks)
    assert b"".join(weights.decode(chunk)[1].tobytes() for chunk in chunks) == payload
    assert sum(chunk.rows for chunk in chunks) == int(np.prod(shape[:-1] if len(shape) > 1 else shape))


def test_what_compresses_is_compressed():
    (chunk,) = weights.encode_dense(weights.Range("main", 3, 1, "w", "float32", (100, 100)), bytes(40_000))
    assert chunk.codec == weights_pb2.WEIGHT_CODEC_DENSE_ZSTD and len(chunk.data) < 200


def test_a_published_policy_is_served_bit_for_bit(log, engine, tiny_model):
    updater = updater_of(log, engine)
    for version in (1, 2):
        publish(log, state_of(tiny_model(version)), version)
        updater.turn(0.5)
        assert_serves(engine, version, tiny_model(version))
    assert (updater.trouble, updater.updates) == ("", 2)


def flip(chunks: list[weights_pb2.WeightChunk]) -> None:
    chunks[2].data = bytes([chunks[2].data[0] ^ 1]) + chunks[2].data[1:]


def leave_out(chunks: list[weights_pb2.WeightChunk]) -> None:
    del chunks[3]


def unknown_codec(chunks: list[weights_pb2.WeightChunk]) -> None:
    chunks[0].codec = 99


def of_another_version(chunks: list[weights_pb2.WeightChunk]) -> None:
    chunks[1].version += 1


@pytest.mark.parametrize("change", [flip, leave_out, unknown_codec, of_another_version])
def test_a_version_with_a_bad_chunk_is_refused_and_the_next_good_one_is_served(log, engine, tiny_model, change):
    updater = updater_of(log, engine)
    publish(log, state_of(tiny_model(1)), 1)
    updater.turn(0.5)
    publish(log, state_of(tiny_model(2)), 2, change=change)
    updater.turn(0.5)
    assert_serves(engine, 1, tiny_model(1))
    assert updater.trouble.startswith("version 2 is refused")
    assert updater.meter.values()['sluice_generation_weights_refused_total{reason="Broken"}'] == 1
    publish(log, state_of(tiny_model(3)), 3)
    updater.turn(0.5)
    assert_serves(engine, 3, tiny_model(3))
    assert updater.trouble == ""


def test_weights_that_are_not_finite_are_never_applied_and_the_tensor_is_named(log, engine, tiny_model):
    state = {name: tensor.clone() for name, tensor in state_of(tiny_model(1)).items()}
    state["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    updater = updater_of(log, engine)
    publish(log, state, 1)
    updater.turn(0.5)
    assert engine.version == 0 and "model.layers.1.mlp.up_proj.weight" in updater.trouble


def test_another_models_weights_are_refused_with_the_differences(log, engine, tiny_model):
    updater = updater_of(log, engine)
    publish(log, state_of(tiny_model(1, hidden_size=32)), 1)
    updater.turn(0.5)
    assert engine.version == 0 and "of another shape: model.embed_tokens.weight is (102, 32)" in updater.trouble


def test_an_older_epoch_or_version_is_not_taken(log, tiny_model):
    reader = WeightReader(log, NAMES, "main")
    publish(log, state_of(tiny_model(1)), version=5, epoch=2)
    publish(log, state_of(tiny_model(1)), version=6, epoch=1)
    publish(log, state_of(tiny_model(1)), version=4, epoch=2)
    found = reader.newest(0.5)
    assert (found.version, found.epoch, reader.refused) == (5, 2, 2)
    publish(log, state_of(tiny_model(1)), version=7, epoch=3)
    assert reader.newest(0.5).version == 7


def test_chunks_below_retention_are_lost_and_said_so(log, engine, tiny_model):
    manifest = publish(log, state_of(tiny_model(1)), 1)
    log.trim(NAMES.topic("weights"), 0, manifest.parts[0].last_offset)
    with pytest.raises(Lost):
        WeightReader(log, NAMES, "main").fetch(manifest)
    updater = updater_of(log, engine)
    updater.turn(0.5)
    assert engine.version == 0 and "refused" in updater.trouble


def test_a_hold_keeps_newer_weights_waiting_until_it_ends(log, engine, tiny_model):
    updater = updater_of(log, engine)
    publish(log, state_of(tiny_model(1)), 1)
    updater.turn(0.5)
    hold_id, version = updater.versions.hold(None, 30.0)
    assert version == 1
    publish(log, state_of(tiny_model(2)), 2)
    updater.start()
    time.sleep(0.5)
    assert engine.version == 1 and updater.versions.newest == 2
    updater.versions.release(hold_id)
    until = time.monotonic() + 5
    while engine.version != 2:
        assert time.monotonic() < until
        time.sleep(0.01)
    updater.close()


def test_equal_specs_have_no_differences_and_others_are_listed():
    one = [weights_pb2.TensorSpec(name="a", dtype="float32", shape=[2]), weights_pb2.TensorSpec(name="b")]
    two = [weights_pb2.TensorSpec(name="a", dtype="float32", shape=[3]), weights_pb2.TensorSpec(name="c")]
    assert weights.spec_differences(one, one) == []
    assert weights.spec_differences(one, two) == [
        "b is missing",
        "c is unknown",
        "a is ('float32', (3,)), not ('float32', (2,))",
    ]
