"""What is written is what is read: order, keys, headers, sizes, topics."""

import os

import pytest

from pipeline.errors import Lost, Poison, UserError
from pipeline.log import TopicConfig, partition_of
from pipeline.log.api import MAX_RECORD_BYTES, read_all


def test_records_of_one_key_stay_in_order_in_the_partition_of_their_key(opened, run):
    topic = opened.create(f"{run}.in", 4)
    pairs = [(f"key-{i % 7}".encode(), str(i).encode()) for i in range(700)]
    for start in range(0, 700, 100):
        opened.write(f"{run}.w", topic, pairs[start : start + 100])
    found = read_all(opened.log, topic)
    assert len(found) == 700
    for key in {key for key, _ in pairs}:
        of_key = [record for record in found if record.key == key]
        assert [record.value for record in of_key] == [value for k, value in pairs if k == key]
        assert {record.partition for record in of_key} == {partition_of(key, 4)}


def test_offsets_rise_and_a_transaction_says_where_its_records_are(opened, run):
    topic = opened.create(f"{run}.in", 2)
    written = opened.write(f"{run}.w", topic, [(f"{i}".encode(), b"v") for i in range(20)])
    assert sorted(written) == sorted((r.topic, r.partition, r.offset) for r in read_all(opened.log, topic))
    assert [place[1] for place in written] == [partition_of(f"{i}".encode(), 2) for i in range(20)]


def test_headers_and_timestamps_come_back(opened, run):
    topic = opened.create(f"{run}.in")
    headers = (("schema", b"Rollout/1.0"), ("empty", b""), ("same", b"1"), ("same", b"\x00\xff"), ("näme", b"2"))
    opened.write(f"{run}.w", topic, [(b"k", b"v")], headers=headers)
    (record,) = read_all(opened.log, topic)
    assert record.headers == headers
    assert record.header("same") == b"1" and record.header("none") is None
    assert 1_600_000_000_000 < record.timestamp_ms < 4_000_000_000_000


def test_a_partition_can_be_chosen(opened, run):
    topic = opened.create(f"{run}.in", 3)
    opened.write(f"{run}.w", topic, [(b"k", b"v")], partition=2)
    assert [record.partition for record in read_all(opened.log, topic)] == [2]
    with pytest.raises(UserError, match="accepted: 0 to 2"):
        opened.write(f"{run}.w2", topic, [(b"k", b"v")], partition=3)


def test_records_of_no_bytes_and_of_900_kb_pass_and_larger_ones_are_poison(opened, run):
    topic = opened.create(f"{run}.in")
    large = os.urandom(MAX_RECORD_BYTES)
    opened.write(f"{run}.w", topic, [(b"", b""), (b"k", large)])
    assert opened.values(topic) == [b"", large]
    with pytest.raises(Poison, match="900001 bytes; accepted: 900000 or fewer"):
        opened.write(f"{run}.w2", topic, [(b"k", b"fits"), (b"k", large + b"x")])
    assert opened.values(topic) == [b"", large]


def test_what_was_committed_a_moment_ago_is_read(opened, run):
    topic = opened.create(f"{run}.in", 4)
    writer = opened.writer(f"{run}.w")
    for count in range(1, 31):
        with writer.transaction() as transaction:
            transaction.send(topic, f"{count}".encode(), bytes(MAX_RECORD_BYTES))
        assert sum(end for _, end in opened.log.bounds(topic).values()) >= count


def test_many_large_records_of_one_transaction_pass(opened, run):
    topic = opened.create(f"{run}.in")
    opened.write(f"{run}.w", topic, [(b"k", bytes([i]) * MAX_RECORD_BYTES) for i in range(50)])
    assert [value[0] for value in opened.values(topic)] == list(range(50))


def test_an_unknown_topic_is_refused_by_name_everywhere(opened, run):
    opened.create(f"{run}.in")
    nothing = f"{run}.nothing"
    for action in (
        lambda: opened.log.partitions(nothing),
        lambda: opened.log.bounds(nothing),
        lambda: opened.log.backlog("g", nothing),
        lambda: opened.log.trim(nothing, 0, 1),
        lambda: opened.follow({(nothing, 0): 0}),
        lambda: opened.group(f"{run}.g", [nothing], "m"),
        lambda: opened.write(f"{run}.w", nothing, [(b"k", b"v")]),
    ):
        with pytest.raises(UserError, match=nothing):
            action()


def test_topics_are_created_once_and_never_with_other_partitions(opened, run):
    opened.create(f"{run}.b", 2)
    opened.create(f"{run}.a", 3)
    opened.another_log().create([TopicConfig(f"{run}.a", 3)])
    assert opened.log.topics(f"{run}.") == [f"{run}.a", f"{run}.b"]
    assert opened.log.partitions(f"{run}.a") == 3
    with pytest.raises(UserError, match="has 3 partitions, asked for 4"):
        opened.create(f"{run}.a", 4)
    with pytest.raises(UserError, match="accepted: 1 or more"):
        opened.create(f"{run}.c", 0)


def test_two_runs_side_by_side_do_not_see_each_other(opened, run):
    one, two = f"{run}-1", f"{run}-2"
    for name in (one, two):
        opened.create(f"{name}.in")
        opened.write(f"{name}.w", f"{name}.in", [(b"k", name.encode())])
    assert opened.values(f"{one}.in") == [one.encode()] and opened.values(f"{two}.in") == [two.encode()]
    assert opened.log.topics(f"{one}.") == [f"{one}.in"]
    readers = [opened.group(f"{name}.work", [f"{name}.in"], "m") for name in (one, two)]
    assert [reader.poll(10)[0].value for reader in readers] == [one.encode(), two.encode()]


def test_a_follower_waits_for_what_comes_and_can_be_sent_elsewhere(opened, run):
    topic = opened.create(f"{run}.in", 2)
    follower = opened.follow({(topic, 0): 0, (topic, 1): 0})
    assert follower.poll(0.1) == []
    assert follower.positions() == {(topic, 0): 0, (topic, 1): 0}
    for value in (b"first", b"second"):
        opened.write(f"{run}.w", topic, [(b"k", value)], partition=1)
        assert [record.value for record in follower.poll(10)] == [value]
    follower.seek({(topic, 1): 0})
    assert [record.value for record in follower.poll(10, max_records=1)] == [b"first"]
    assert follower.positions()[(topic, 1)] >= 1


def test_a_poll_returns_no_more_records_than_asked_for_and_loses_none(opened, run):
    topic = opened.create(f"{run}.in", 3)
    opened.write(f"{run}.w", topic, [(str(i).encode(), b"v") for i in range(100)])
    follower = opened.follow({(topic, partition): 0 for partition in range(3)})
    polls = [follower.poll(10, max_records=7) for _ in range(15)]
    assert max(map(len, polls)) <= 7 and sum(map(len, polls)) >= 90
    found = sum(polls, []) + [record for _ in range(5) for record in follower.poll(0.1)]
    assert len({(r.partition, r.offset) for r in found}) == len(found) == 100


def test_an_offset_that_was_trimmed_or_never_was_is_lost_and_says_so(opened, run):
    topic = opened.create(f"{run}.in")
    written = opened.write(f"{run}.w", topic, [(b"k", str(i).encode()) for i in range(10)])
    opened.log.trim(topic, 0, written[6][2])
    assert opened.log.bounds(topic)[0][0] == written[6][2]
    assert opened.values(topic) == [b"6", b"7", b"8", b"9"]
    with pytest.raises(Lost, match="offset 2 of .* is gone; the log holds 6"):
        opened.follow({(topic, 0): 2}).poll(10)
    with pytest.raises(Lost, match="beyond its end"):
        opened.follow({(topic, 0): 5000}).poll(10)


def test_offsets_go_on_after_everything_was_trimmed(opened, run):
    topic = opened.create(f"{run}.in")
    before = opened.write(f"{run}.w", topic, [(b"k", b"v")] * 5)
    opened.log.trim(topic, 0, 10**9)
    assert opened.values(topic) == []
    first, end = opened.log.bounds(topic)[0]
    assert first == end > before[-1][2]
    after = opened.write(f"{run}.w", topic, [(b"k", b"new")])
    assert after[0][2] >= end
    assert opened.values(topic) == [b"new"]
