"""A policy that travels as deltas: whatever happens, a reader has the learner's bits or says that it has not."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipeline import chain, claims, sparse, weights
from pipeline.errors import Poison
from pipeline.metrics import Meter
from services.generation.engine.api import EngineOptions
from services.generation.engine.transformers import TransformersEngine
from services.generation.updater import Updater
from services.generation.versions import Versions
from services.generation.weights import Broken, WeightReader
from services.learning.publish import Plan
from sluice.v1 import weights_pb2
from tests.services.generation.delta_world import NAMES, Learner, Policy, Worker, bits

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize(
    ("dtype", "where"),
    [
        ("bfloat16", "log"),
        ("float32", "store"),
        pytest.param("float16", "log", marks=pytest.mark.long),
        pytest.param("float32", "log", marks=pytest.mark.long),
        pytest.param("bfloat16", "store", marks=pytest.mark.long),
    ],
)
def test_every_reader_has_the_learners_bits_at_every_version_it_claims(log, tmp_path, dtype, where):
    rng = random.Random(dtype)
    store = str(tmp_path / "anchors") if where == "store" else ""
    learner = Learner(log, Plan(anchor_every=7, store=store), DTYPES[dtype], rng)
    workers = [Worker(log, DTYPES[dtype], store, exchanges=number > 0) for number in range(3)]
    sparse_updates = failures = 0
    for number in range(200):
        learner.move(rng.choice([0.001, 0.01, 0.05, 1.0 if number % 20 == 0 else 0.02]))
        if rng.random() < 0.04:
            learner.publish(die=True)
            learner.restart()
        learner.publish(lose=rng.random() < 0.05, repeat=rng.random() < 0.1)
        if rng.random() < 0.1:
            learner.saved = {name: tensor.clone() for name, tensor in learner.policy.items()}
        if rng.random() < 0.05:
            at = rng.randrange(3)
            sparse_updates, failures = sparse_updates + workers[at].sparse, failures + workers[at].failures
            workers[at] = Worker(log, DTYPES[dtype], store, exchanges=at > 0)
        for worker in rng.sample(workers, rng.randrange(4)):
            if not worker.turn():
                learner.publish(again=True)
                assert worker.turn()
            worker.assert_serves(learner.announced)
    for worker in workers:
        assert worker.turn() or (learner.publish(again=True) and worker.turn())
        worker.assert_serves(learner.announced)
        assert worker.version == learner.publisher.version
    sparse_updates += sum(worker.sparse for worker in workers)
    failures += sum(worker.failures for worker in workers)
    assert learner.publisher.version >= 200 and learner.epoch > 3
    assert sparse_updates > 50 and failures > 3


def assert_same(update, policy: Policy) -> None:
    assert {name: bits(tensor) for name, tensor in update.tensors.items()} == {n: bits(t) for n, t in policy.items()}


def test_a_worker_that_has_the_version_before_reads_the_delta_only_and_a_newcomer_the_anchor_and_all_since(log):
    learner = Learner(log, Plan(anchor_every=3), torch.bfloat16, random.Random(1))
    old, sizes = WeightReader(log, NAMES, "main"), []
    for _ in range(4):
        learner.move(0.01)
        learner.publish()
        update = old.fetch(old.newest(1.0))
        sizes.append(update.size_bytes)
    dense = sum(tensor.numel() * 2 for tensor in learner.policy.values())
    assert sizes[0] > 0.7 * dense and max(sizes[1:]) < 0.05 * dense  # version 4 is an anchor too
    newcomer = WeightReader(log, NAMES, "main")
    update = newcomer.fetch(newcomer.newest(1.0))
    assert update.version == 4 and update.size_bytes > 0.7 * dense
    assert_same(update, learner.announced[4])


def test_values_that_are_not_finite_stay_refused_until_they_are_gone(log):
    """The version after a bad one changes other values: what is bad is not in its delta."""
    learner = Learner(log, Plan(anchor_every=9), torch.bfloat16, random.Random(1))
    reader = WeightReader(log, NAMES, "main")
    learner.publish()
    reader.fetch(reader.newest(1.0))
    reader.served(1)
    for version, value in ((2, float("nan")), (3, float("nan")), (4, 1.0)):
        learner.policy["bias"][17] = value
        learner.policy["cube"] += 1
        learner.publish()
        manifest = reader.newest(1.0)
        if version < 4:
            with pytest.raises(Poison, match=rf"version {version} has values that are not finite in 'bias'") as caught:
                reader.fetch(manifest)
            assert not isinstance(caught.value, Broken)
    update = reader.fetch(manifest)
    assert (update.base, sorted(update.changed)) == (1, ["bias", "cube"])
    assert_same(update, learner.announced[4])


def test_a_copy_that_went_wrong_is_found_by_its_digest_and_its_tensor_is_named(log):
    learner = Learner(log, Plan(anchor_every=9), torch.bfloat16, random.Random(1))
    reader = WeightReader(log, NAMES, "main")
    learner.publish()
    reader.fetch(reader.newest(1.0))
    reader.held.tensors["bias"][5] ^= 1
    learner.policy["bias"][9] += 1
    learner.publish()
    with pytest.raises(Broken, match="version 2 has digest .*; tensors that differ: bias"):
        reader.fetch(reader.newest(1.0))
    assert_same(reader.fetch(reader.newest(0.0)), learner.announced[2])  # from the anchor


def test_an_anchor_in_the_store_that_was_changed_is_refused_and_the_one_that_is_asked_for_is_taken(log, tmp_path):
    store = str(tmp_path / "anchors")
    learner = Learner(log, Plan(anchor_every=9, store=store), torch.float32, random.Random(1))
    reader = WeightReader(log, NAMES, "main", store)
    learner.publish()
    (file,) = (tmp_path / "anchors").iterdir()
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(Broken, match="is not the .* bytes that were claimed"):
        reader.fetch(reader.newest(1.0))
    learner.publish(again=True)
    assert_same(reader.fetch(reader.newest(1.0)), learner.announced[1])


def test_an_anchor_outside_the_runs_store_is_not_read(log, tmp_path):
    learner = Learner(log, Plan(anchor_every=9, store=str(tmp_path / "elsewhere")), torch.float32, random.Random(1))
    learner.publish()
    reader = WeightReader(log, NAMES, "main", str(tmp_path / "anchors"))
    with pytest.raises(Broken, match="accepted: payloads under"):
        reader.fetch(reader.newest(1.0))


def route(*parts: tuple[int, int, bool], have: int | None = None) -> list[int]:
    """Indices of the parts to take. A part: (version, base, is it an anchor); digests are versions."""
    made = [
        weights_pb2.WeightPart(version=version, base_version=base, anchor=anchor, result_sha256=bytes([version]))
        for version, base, anchor in parts
    ]
    manifest = weights_pb2.WeightManifest(version=parts[-1][0] if parts else 1, parts=made)
    taken = chain.route(manifest, have, bytes([have or 0]))
    return [next(at for at, part in enumerate(manifest.parts) if part is one or part == one) for one in taken]


CHAIN = ((1, 0, True), (2, 1, False), (3, 2, False), (3, 0, True), (4, 3, False))


@pytest.mark.parametrize(
    ("have", "taken"), [(None, [3, 4]), (1, [1, 2, 4]), (2, [2, 4]), (3, [4]), (4, []), (9, [3, 4])]
)
def test_the_way_to_a_version_is_the_deltas_since_or_the_newest_anchor(have, taken):
    assert route(*CHAIN, have=have) == taken


def test_after_a_version_without_a_delta_the_way_is_its_anchor():
    assert route((1, 0, True), (2, 0, True), (3, 2, False), have=1) == [1, 2]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "does not end in it"),
        ([(2, 1, False)], "has no anchor"),
        ([(1, 0, True), (3, 2, False)], "has a gap after its anchor"),
    ],
)
def test_a_manifest_that_leads_nowhere_is_refused(parts, said):
    with pytest.raises(Poison, match=said):
        route(*parts)


def sparse_chunks(new: np.ndarray, old: np.ndarray, shape: tuple[int, ...], dtype: str):
    where = weights.Range("main", 2, 1, "w", dtype, shape)
    return list(weights.encode_sparse(where, new, sparse.changed(new, old)))


@pytest.mark.parametrize("share", [0.0, 1e-5, 0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(), (7,), (3_000_000,), (1, 400_000), (2000, 1500), (40, 50, 60)])
def test_a_sparse_change_comes_back_bit_for_bit_in_chunks_that_a_record_can_carry(shape, share):
    rng = np.random.default_rng(1)
    size = int(np.prod(shape))
    old = rng.integers(0, 2**16, size).astype(np.uint16)
    new = np.where(rng.random(size) < share, old + 1, old).astype(np.uint16)
    chunks = sparse_chunks(new, old, shape, "bfloat16")
    assert all(len(chunk.SerializeToString()) <= 900_000 for chunk in chunks)
    found = old.copy()
    for chunk in random.Random(1).sample(chunks * 2, 2 * len(chunks)):
        row = chunk.shape[-1] if len(chunk.shape) > 1 else 1
        part = found[chunk.first_row * row : (chunk.first_row + chunk.rows) * row]
        position_K, value_K = weights.decode(chunk)
        part[slice(None) if position_K is None else position_K] = value_K
    assert np.array_equal(found, new)
    coded = sum(len(chunk.data) for chunk in chunks)
    assert coded <= min(1.01 * new.nbytes, 4.1 * np.count_nonzero(new != old)) + 20_000 * share + 200


def test_two_values_far_apart_are_bridged():
    new = np.zeros(300_000, np.uint16)
    new[[3, 299_999]] = 7
    (chunk,) = sparse_chunks(new, np.zeros_like(new), (300_000,), "bfloat16")
    assert (chunk.changed, chunk.first_row) == (6, 3)  # a value, four fillers of 65,535, a value; rows from the first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": b"no zstd"}, "does not decompress"),
        ({"changed": 1}, "is corrupt|does not decompress"),
        ({"digest": b"0" * 16}, "is corrupt"),
        ({"rows": 1}, "ends behind its own rows"),
        ({"codec": 99}, "codec 99; accepted: DENSE"),
    ],
)
def test_a_sparse_chunk_that_was_changed_is_poison(change, said):
    new = np.zeros(1000, np.uint16)
    new[[3, 700]] = 7
    (chunk,) = sparse_chunks(new, np.zeros_like(new), (1000,), "bfloat16")
    for name, value in change.items():
        setattr(chunk, name, value)
    with pytest.raises(Poison, match=said):
        weights.decode(chunk)


@pytest.fixture
def engine(tokenizer, tiny_model) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(tiny_model(0), EngineOptions(slots=4), tokenizer)
    yield engine
    engine.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_engine_writes_only_what_changed_and_serves_the_whole(log, engine, tiny_model, dtype):
    """A float32 engine (tied embedding) is fed from weights of another type: what it holds is that cast, exactly."""
    learner = Learner(log, Plan(anchor_every=20), DTYPES[dtype], random.Random(2))
    learner.policy = {name: parameter.detach().clone() for name, parameter in tiny_model(1).named_parameters()}
    updater = Updater(WeightReader(log, NAMES, "main"), Versions(engine, 2), Meter("generation", "worker-0"))
    plans = []
    plan = engine._parameters.plan
    engine._parameters.plan = lambda tensors, changed, given: plans.append(changed) or plan(tensors, changed, given)
    for version in range(1, 6):
        learner.move(0.02)
        learner.publish()
        updater.turn(1.0)
        assert (engine.version, updater.trouble) == (version, "")
        for name, tensor in learner.announced[version].items():
            served = dict(engine._decoder.model.named_parameters())[name]
            assert torch.equal(served, tensor.float()), name
            copy = updater.reader.held.tensors[name]
            assert copy.tobytes() == bits(tensor) and copy.ctypes.data != served.data_ptr()
    assert plans[0] is None and all(None not in changed.values() for changed in plans[1:])
    assert engine._decoder.model.lm_head.weight is engine._decoder.model.model.embed_tokens.weight


def test_a_broken_chain_is_reported_asked_for_and_left_by_the_anchor(log, engine, tiny_model):
    learner = Learner(log, Plan(anchor_every=20), torch.bfloat16, random.Random(2))
    learner.policy = {name: parameter.detach().clone() for name, parameter in tiny_model(1).named_parameters()}
    updater = Updater(WeightReader(log, NAMES, "main"), Versions(engine, 2), Meter("generation", "worker-0"))
    learner.publish()
    updater.turn(1.0)
    learner.move(0.02)
    learner.publish(lose=True)
    for _ in range(3):
        updater.turn(0.1)
    assert (engine.version, updater.anchors_wanted) == (1, 1) and "lacks 1 of its" in updater.trouble
    learner.publish(again=True)
    updater.turn(1.0)
    assert (engine.version, updater.anchors_wanted, updater.trouble) == (2, 1, "")
    learner.publish(again=True)  # for somebody else
    updater.turn(1.0)
    assert (updater.updates, updater.trouble) == (2, "")
    for name, tensor in learner.announced[2].items():
        assert torch.equal(dict(engine._decoder.model.named_parameters())[name], tensor.float())


def test_a_claim_names_what_it_stored(tmp_path):
    blocks = [memoryview(b"head"), memoryview(b"tail")]
    claim = claims.put_blocks(str(tmp_path), blocks)
    assert claims.get(claim, str(tmp_path)) == b"headtail"
    room = [memoryview(bytearray(5)), memoryview(bytearray(3))]
    claims.get_into(claim, str(tmp_path), room)
    assert b"".join(room) == b"headtail"
    with pytest.raises(Poison, match="is not the 7 bytes"):
        claims.get_into(claim, str(tmp_path), [memoryview(bytearray(7))])
    claims.remove(claim, str(tmp_path))
    claims.remove(claim, str(tmp_path))
    with pytest.raises(Poison, match="not in the store"):
        claims.get(claim, str(tmp_path))
    with pytest.raises(Poison, match="accepted: payloads under"):
        claims.remove(type(claim)(uri="/etc/passwd"), str(tmp_path))
