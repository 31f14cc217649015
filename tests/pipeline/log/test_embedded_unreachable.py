"""The embedded log when its file is locked, damaged or on a full disk: bounded, one sentence, and it comes back."""

import sqlite3
import time

import pytest

from pipeline.errors import LogUnavailable, UserError
from pipeline.log import TopicConfig
from pipeline.log.api import read_all
from pipeline.log.embedded import EmbeddedLog


@pytest.fixture
def log(tmp_path):
    found = EmbeddedLog(str(tmp_path / "log.db"), patience_s=0.5)
    yield found
    found.close()


def send(writer, value):
    with writer.transaction() as transaction:
        transaction.send("t", b"k", value)


def refused(action, words):
    begun = time.monotonic()
    with pytest.raises(LogUnavailable, match=words) as caught:
        action()
    assert time.monotonic() - begun < 3.0
    assert "log.db" in str(caught.value) and "\n" not in str(caught.value)


def test_a_log_that_is_locked_from_the_start_is_waited_for_and_then_opens(log, worker, tmp_path):
    holder = worker("lock", str(tmp_path / "log.db"))
    assert holder.stdout.readline() == "locked\n"
    for action in (lambda: log.create([TopicConfig("t", 1)]), lambda: log.topics(), lambda: log.writer("w")):
        refused(action, "locked")
    holder.communicate()
    log.create([TopicConfig("t", 1)])
    assert log.topics() == ["t"]


def test_a_lock_held_by_another_process_delays_writers_and_groups_and_then_they_go_on(log, worker, tmp_path):
    log.create([TopicConfig("t", 1)])
    writer, reader = log.writer("w"), log.group("g", ["t"], "m", lease_s=0.3)
    send(writer, b"before")
    assert len(reader.poll(1.0)) == 1
    holder = worker("lock", str(tmp_path / "log.db"))
    assert holder.stdout.readline() == "locked\n"
    refused(lambda: send(writer, b"during"), "locked")
    time.sleep(0.3)
    refused(lambda: reader.poll(0.1), "locked")  # its lease cannot be renewed
    assert len(read_all(log, "t")) == 1  # reading needs no lock
    holder.communicate()
    send(writer, b"after")
    assert [record.value for record in reader.poll(2.0)] == [b"after"]
    assert [record.value for record in read_all(log, "t")] == [b"before", b"after"]


def test_a_short_lock_is_waited_out_without_an_error(tmp_path, worker):
    log = EmbeddedLog(str(tmp_path / "log.db"), patience_s=5.0)
    log.create([TopicConfig("t", 1)])
    holder = worker("lock", str(tmp_path / "log.db"))
    assert holder.stdout.readline() == "locked\n"
    holder.stdin.close()
    send(log.writer("w"), b"v")
    assert len(read_all(log, "t")) == 1
    log.close()


def test_a_full_disk_refuses_the_whole_transaction_and_takes_it_when_there_is_room(log, tmp_path):
    log.create([TopicConfig("t", 1)])
    writer = log.writer("w")
    send(writer, b"small")
    connection = log._database._connection()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count={pages + 10}")
    refused(lambda: send(writer, b"x" * 500_000), "full")
    assert [record.value for record in read_all(log, "t")] == [b"small"]
    send(writer, b"x" * 500_000)  # the connection was opened anew, without that bound
    assert [len(record.value) for record in read_all(log, "t")] == [5, 500_000]


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "log.db"
    path.write_bytes(b"this is not a database, but it is long enough to look like one" * 100)
    refused(lambda: EmbeddedLog(str(path)).topics(), "not a database")


def test_a_path_that_cannot_be_a_log_is_named(tmp_path):
    with pytest.raises(UserError, match="is a directory; accepted: the path of a file"):
        EmbeddedLog(str(tmp_path))
    (tmp_path / "file").write_text("")
    refused(lambda: EmbeddedLog(str(tmp_path / "file" / "log.db")).topics(), "cannot be opened")


def test_a_log_of_a_newer_format_is_refused(log, tmp_path):
    log.create([TopicConfig("t", 1)])
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(UserError, match="has format 99; accepted: 1 or older"):
        EmbeddedLog(str(tmp_path / "log.db")).topics()
