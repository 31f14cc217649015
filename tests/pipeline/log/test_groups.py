"""Sharing work: every partition has one member, and a dead member's go to the living."""

import contextlib
import threading
import time

import pytest

from pipeline.errors import Fenced


@contextlib.contextmanager
def polling(*readers):
    """Keep members polling in the background, collecting what they read."""
    stop, found = threading.Event(), [[] for _ in readers]

    def poll(reader, mine):
        while not stop.is_set():
            mine.extend(reader.poll(0.05))

    threads = [threading.Thread(target=poll, args=pair) for pair in zip(readers, found, strict=True)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def held(*readers):
    """How many partitions each holds; None while one is held twice or by nobody (4 in all)."""
    parts = [reader.assigned() for reader in readers]
    whole = sum(map(len, parts)) == 4 == len(frozenset().union(*parts))
    return sorted(map(len, parts)) if whole else None


def test_members_share_the_partitions_and_every_record_is_read_once(opened, run, eventually):
    topic = opened.create(f"{run}.in", 4)
    first = opened.group(f"{run}.work", [topic], "first")
    with polling(first):
        eventually(lambda: held(first) == [4])
    second = opened.group(f"{run}.work", [topic], "second")
    with polling(first, second) as found:
        eventually(lambda: held(first, second) == [2, 2])
        opened.write(f"{run}.w", topic, [(str(i).encode(), str(i).encode()) for i in range(200)])
        eventually(lambda: sum(map(len, found)) >= 200)
    assert sorted(int(record.value) for part in found for record in part) == list(range(200))
    assert all(found)


def test_however_briefly_a_member_polls_it_gets_its_partitions(opened, run, eventually):
    for n in range(6):
        topic = opened.create(f"{run}.in-{n}", 4)
        reader = opened.group(f"{run}.work-{n}", [topic], "hasty")
        eventually(lambda reader=reader: reader.poll(0.002) == [] and held(reader) == [4], pause=0.001 * n)


def test_a_member_that_leaves_gives_its_partitions_up_at_once(opened, run, eventually):
    topic = opened.create(f"{run}.in", 4)
    first, second = (opened.group(f"{run}.work", [topic], name, lease_s=20.0) for name in ("first", "second"))
    with polling(first, second):
        eventually(lambda: held(first, second) == [2, 2])
    begun = time.monotonic()
    first.close()
    with polling(second):
        eventually(lambda: held(second) == [4], 10)
    assert time.monotonic() - begun < 10  # half of the lease


def test_a_killed_member_is_replaced_when_its_lease_ends_and_not_before(opened, run, worker, eventually):
    topic = opened.create(f"{run}.in", 4)
    victim = worker("member", opened.address, run, "victim")
    assert "holds 4\n" in iter(victim.stdout.readline, "")
    heir = opened.group(f"{run}.work", [topic], "heir")
    with polling(heir):
        eventually(lambda: len(heir.assigned()) == 2)
        victim.kill()
        killed = time.monotonic()
        eventually(lambda: len(heir.assigned()) == 4)
    assert 0.5 < time.monotonic() - killed < 8.0


def test_a_member_that_is_full_stays_a_member_and_loses_no_records(opened, run, eventually):
    topic = opened.create(f"{run}.in", 4)
    reader = opened.group(f"{run}.work", [topic], "full")
    eventually(lambda: reader.poll(0.05, max_records=0) == [] and held(reader) == [4])
    opened.write(f"{run}.w", topic, [(str(i).encode(), b"v") for i in range(50)])
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        assert reader.poll(0.05, max_records=0) == []
    assert held(reader) == [4]
    found = []
    eventually(lambda: found.extend(reader.poll(0.2, max_records=20)) or len(found) == 50)
    assert len({(record.partition, record.offset) for record in found}) == 50


def test_a_member_that_lost_a_partition_cannot_commit_it(opened, run, eventually):
    topic = opened.create(f"{run}.in", 4)
    opened.write(f"{run}.w", topic, [(str(i).encode(), b"v") for i in range(40)])
    slow = opened.group(f"{run}.work", [topic], "slow")
    writer = opened.writer(f"{run}.slow")
    found = []
    eventually(lambda: found.extend(slow.poll(0.2)) or len(found) == 40)
    offsets = {(r.topic, r.partition): r.offset + 1 for r in found}
    other = opened.group(f"{run}.work", [topic], "other")
    with polling(slow, other):
        eventually(lambda: held(slow, other) == [2, 2])
    with pytest.raises(Fenced), writer.transaction() as transaction:
        transaction.commit_offsets(slow, offsets)
    kept = {position: offset for position, offset in offsets.items() if position in slow.assigned()}
    with writer.transaction() as transaction:
        transaction.commit_offsets(slow, kept)
    assert opened.log.backlog(f"{run}.work", topic) >= 40 - sum(kept.values())


def test_a_group_goes_on_where_it_stopped_and_another_group_reads_everything(opened, run):
    topic = opened.create(f"{run}.in")
    opened.write(f"{run}.w", topic, [(b"k", str(i).encode()) for i in range(10)])
    writer = opened.writer(f"{run}.t")
    reader = opened.group(f"{run}.one", [topic], "m")
    assert len(reader.poll(10, max_records=4)) == 4
    with writer.transaction() as transaction:
        transaction.commit_offsets(reader, {(topic, 0): 4})
    reader.close()
    again = opened.group(f"{run}.one", [topic], "m")
    assert [record.value for record in again.poll(10)] == [b"4", b"5", b"6", b"7", b"8", b"9"]
    other = opened.group(f"{run}.two", [topic], "m")
    assert len(other.poll(10)) == 10


def test_a_group_reads_several_topics(opened, run, eventually):
    topics = [opened.create(f"{run}.requests", 2), opened.create(f"{run}.requests-retry", 2)]
    for topic in topics:
        opened.write(f"{run}.w", topic, [(str(i).encode(), topic.encode()) for i in range(5)])
    reader = opened.group(f"{run}.work", topics, "m")
    found = []
    eventually(lambda: found.extend(reader.poll(0.2)) or len(found) == 10)
    assert {record.topic for record in found} == set(topics)


def test_reading_idles_without_burning_a_core(opened, run):
    topic = opened.create(f"{run}.in", 4)
    reader = opened.group(f"{run}.work", [topic], "m")
    follower = opened.follow({(topic, 0): 0})
    reader.poll(1.0)
    cpu, wall = time.process_time(), time.monotonic()
    while time.monotonic() - wall < 2.0:
        reader.poll(0.5)
        follower.poll(0.5)
    assert (time.process_time() - cpu) / (time.monotonic() - wall) < 0.1  # about 0.01; other work shares the machine
