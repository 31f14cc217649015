"""Retention and compaction."""

import time

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from pipeline.errors import Lost, UserError
from pipeline.log import TopicConfig
from pipeline.log.api import read_all
from pipeline.log.embedded import EmbeddedLog
from pipeline.log.embedded_database import Database
from pipeline.log.embedded_expire import expire


def hurry(opened, topic):
    """Let Kafka compact now: close its segment at once, and count any old record as worth the work."""
    if not opened.kafka:
        return
    admin = KafkaAdminClient(bootstrap_servers=opened.address.removeprefix("kafka://"))
    soon = {"segment.ms": "100", "min.cleanable.dirty.ratio": "0.0001", "delete.retention.ms": "60000"}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, soon)])
    admin.close()


def test_compaction_keeps_the_newest_record_of_every_key(opened, run, eventually):
    topic = opened.create(f"{run}.state", compacted=True)
    hurry(opened, topic)
    pairs = [(f"key-{i % 10}".encode(), f"{i}".encode()) for i in range(100)]
    opened.write(f"{run}.w", topic, pairs)
    opened.write(f"{run}.w", topic, [(b"key-3", b"")])
    time.sleep(0.2)
    opened.write(f"{run}.w", topic, [(b"last", b"1")])

    def compacted():
        opened.log.expire()
        return len(found := read_all(opened.log, topic)) <= 12 and found

    found = eventually(compacted, 40, pause=0.5)
    newest = {record.key: record.value for record in found}
    assert newest.pop(b"key-3", b"") == b"" and newest.pop(b"last") == b"1"
    assert newest == {f"key-{i}".encode(): f"{90 + i}".encode() for i in range(10) if i != 3}
    assert opened.log.bounds(topic)[0][0] == 0  # reading from the beginning skips nothing that counts


def test_a_compacted_topic_is_not_trimmed(opened, run):
    topic = opened.create(f"{run}.state", compacted=True)
    opened.write(f"{run}.w", topic, [(b"k", b"v")])
    with pytest.raises(UserError, match="accepted: a topic that is kept by time"):
        opened.log.trim(topic, 0, 1)


@pytest.fixture
def embedded(tmp_path):
    log = EmbeddedLog(str(tmp_path / "log.db"))
    yield log
    log.close()


def write(log, topic, pairs):
    with log.writer("w").transaction() as transaction:
        for key, value in pairs:
            transaction.send(topic, key, value)


def test_records_older_than_the_retention_go_and_offsets_do_not_go_back(embedded):
    embedded.create([TopicConfig("t", 1, retention_s=0.3), TopicConfig("kept", 1)])
    for topic in ("t", "kept"):
        write(embedded, topic, [(b"k", b"old")] * 3)
    embedded.expire()
    assert embedded.bounds("t") == {0: (0, 3)}
    time.sleep(0.4)
    write(embedded, "t", [(b"k", b"new")])
    embedded.expire()
    assert [record.value for record in read_all(embedded, "t")] == [b"new"]
    assert embedded.bounds("t") == {0: (3, 4)} and embedded.bounds("kept") == {0: (0, 3)}
    with pytest.raises(Lost, match="offset 1 of t\\[0\\] is gone"):
        embedded.follow({("t", 0): 1}).poll(0.1)
    time.sleep(0.4)
    embedded.expire()
    assert embedded.bounds("t") == {0: (4, 4)}
    write(embedded, "t", [(b"k", b"next")])
    assert [record.offset for record in read_all(embedded, "t")] == [4]


def test_a_group_whose_records_expired_reads_on_from_the_first_held(embedded):
    embedded.create([TopicConfig("t", 1)])
    write(embedded, "t", [(b"k", str(i).encode()) for i in range(5)])
    embedded.trim("t", 0, 3)
    assert [record.value for record in embedded.group("g", ["t"], "m").poll(1.0)] == [b"3", b"4"]
    assert embedded.backlog("g", "t") == 2


def test_a_group_says_how_many_of_its_records_expired_before_it_read_them(opened, run, caplog):
    topic = opened.create(f"{run}.in")
    opened.write(f"{run}.w", topic, [(b"k", str(i).encode()) for i in range(5)])
    reader = opened.group(f"{run}.g", [topic], "m")
    assert len(reader.poll(10, max_records=1)) == 1
    with opened.writer(f"{run}.t").transaction() as transaction:
        transaction.commit_offsets(reader, {(topic, 0): 1})
    reader.close()
    opened.log.trim(topic, 0, 3)
    assert [record.value for record in opened.group(f"{run}.g", [topic], "m").poll(10)] == [b"3", b"4"]
    said = [record.message for record in caplog.records if "expired" in record.message]
    assert said == [f"group {run}.g skips 2 expired records of ('{topic}', 0)"]


def test_compaction_goes_on_where_it_stopped_and_deletes_old_tombstones(embedded, tmp_path, monkeypatch):
    embedded.create([TopicConfig("t", 1, compacted=True)])
    for generation in range(3):
        write(embedded, "t", [(str(i).encode(), str(generation).encode()) for i in range(1200)])
        embedded.expire()
    assert [record.value for record in read_all(embedded, "t")] == [b"2"] * 1200
    write(embedded, "t", [(str(i).encode(), b"") for i in range(1200)])
    embedded.expire()
    assert len(read_all(embedded, "t")) == 1200
    monkeypatch.setattr("pipeline.log.embedded_expire.TOMBSTONE_MS", -1000)
    for _ in range(3):
        embedded.expire()
    assert read_all(embedded, "t") == [] and embedded.bounds("t") == {0: (0, 4800)}


def test_expiring_stops_when_its_time_is_up_and_goes_on_later(embedded, tmp_path):
    embedded.create([TopicConfig("t", 1, compacted=True)])
    write(embedded, "t", [(b"same", str(i).encode()) for i in range(2000)])
    database = Database(str(tmp_path / "log.db"), 1.0)
    expire(database, budget_s=0.0)
    assert len(read_all(embedded, "t")) == 2000
    expire(database, budget_s=10.0)
    assert [record.value for record in read_all(embedded, "t")] == [b"1999"]
    database.close()
