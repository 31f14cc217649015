"""Together or not at all: visibility, fencing, exactly once under SIGKILL."""

import collections
import random
import time

import pytest

from pipeline.errors import Fenced
from pipeline.log.api import read_all


def test_what_an_aborted_transaction_sent_is_never_read(opened, run):
    topic = opened.create(f"{run}.in")
    writer = opened.writer(f"{run}.w")
    with pytest.raises(ZeroDivisionError), writer.transaction() as transaction:
        transaction.send(topic, b"k", b"aborted")
        raise ZeroDivisionError
    with writer.transaction() as transaction:
        transaction.send(topic, b"k", b"committed")
    assert opened.values(topic) == [b"committed"]


def test_nothing_is_read_before_the_commit(opened, run):
    topic = opened.create(f"{run}.in")
    follower = opened.follow({(topic, 0): 0})
    with opened.writer(f"{run}.w").transaction() as transaction:
        transaction.send(topic, b"k", b"v")
        assert follower.poll(0.3) == []
    assert [record.value for record in follower.poll(10)] == [b"v"]


def test_an_empty_transaction_is_no_matter(opened, run):
    topic = opened.create(f"{run}.in")
    with opened.writer(f"{run}.w").transaction() as transaction:
        pass
    assert transaction.written == [] and opened.values(topic) == []


def test_a_zombie_is_fenced_and_stays_fenced(opened, run):
    topic = opened.create(f"{run}.in")
    zombie = opened.writer(f"{run}.w")
    with zombie.transaction() as transaction:
        transaction.send(topic, b"k", b"before")
    heir = opened.writer(f"{run}.w")
    for _ in range(2):
        with pytest.raises(Fenced), zombie.transaction() as transaction:
            transaction.send(topic, b"k", b"zombie")
    with heir.transaction() as transaction:
        transaction.send(topic, b"k", b"heir")
    assert opened.values(topic) == [b"before", b"heir"]


def test_writers_of_other_ids_do_not_fence_each_other(opened, run):
    topic = opened.create(f"{run}.in")
    writers = [opened.writer(f"{run}.{i}") for i in range(3)]
    for writer in writers * 2:
        with writer.transaction() as transaction:
            transaction.send(topic, b"k", b"v")
    assert len(opened.values(topic)) == 6


def test_offsets_and_records_are_committed_together(opened, run):
    source, target = opened.create(f"{run}.in"), opened.create(f"{run}.out")
    opened.write(f"{run}.w", source, [(b"k", str(i).encode()) for i in range(10)])
    writer = opened.writer(f"{run}.t")
    reader = opened.group(f"{run}.work", [source], "m")
    found = reader.poll(10)
    assert len(found) == 10 and opened.log.backlog(f"{run}.work", source) >= 10
    with pytest.raises(ZeroDivisionError), writer.transaction() as transaction:
        transaction.send(target, b"k", b"aborted")
        transaction.commit_offsets(reader, {(source, 0): 10})
        raise ZeroDivisionError
    reader.rewind()
    assert [record.offset for record in reader.poll(10)] == list(range(10))
    with writer.transaction() as transaction:
        transaction.send(target, b"k", b"five")
        transaction.commit_offsets(reader, {(source, 0): 5})
    reader.rewind()
    assert [record.offset for record in reader.poll(10)] == list(range(5, 10))
    assert opened.values(target) == [b"five"]


def test_each_of_500_inputs_has_one_output_though_workers_are_killed_in_mid_transaction(
    opened, run, worker, eventually, tmp_path
):
    """Five kills: four inside a transaction that has written and not committed, one at a random moment."""
    source, target = opened.create(f"{run}.in", 4), opened.create(f"{run}.out", 2)
    opened.write(f"{run}.w", source, [(f"key-{i}".encode(), str(i).encode()) for i in range(500)])
    for number in (1, 3, 2, 4):
        point = {"SLUICE_FAILPOINT": f"log.in_transaction:number={number}", "SLUICE_FAILPOINT_DIR": str(tmp_path)}
        victim = worker("transform", opened.address, run, "a", **point)
        assert victim.wait(30) == -9
    victim = worker("transform", opened.address, run, "a")
    eventually(lambda: len(opened.values(target)) > 0, 30)
    time.sleep(random.Random(7).uniform(0, 0.05))
    victim.kill()
    for identity in ("a", "b"):
        worker("transform", opened.address, run, identity)
    eventually(lambda: len(opened.values(target)) >= 500, 40, pause=0.3)
    time.sleep(0.5)
    origins = collections.Counter(value.split(b" by ")[0] for value in opened.values(target))
    assert origins == {str(i).encode(): 1 for i in range(500)}
    assert opened.log.backlog(f"{run}.work", source) == 0


def test_several_threads_write_at_once(opened, run):
    from concurrent.futures import ThreadPoolExecutor

    topic = opened.create(f"{run}.in", 2)

    def write(i):
        for n in range(5):
            opened.write(f"{run}.{i}.{n}", topic, [(str(i).encode(), f"{i}-{n}".encode())] * 3)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    values = [record.value for record in read_all(opened.log, topic)]
    assert len(values) == 60 and len(set(values)) == 20
