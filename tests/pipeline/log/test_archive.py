"""An archive holds what the log held, byte for byte, and is only read."""

from __future__ import annotations

import pytest

from pipeline.errors import Lost, UserError
from pipeline.log.api import read_all
from pipeline.log.archive import ArchiveLog
from pipeline.rundir import RunDir
from tests.services.learning.recorded import record


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[RunDir, RunDir]:
    """A recorded run, and its archive."""
    from pipeline.archive import archive

    folder = tmp_path_factory.mktemp("archive")
    run = record(folder / "run")
    archive(run, folder / "archive")
    return run, RunDir.of(folder / "archive")


@pytest.mark.parametrize("name", ["prompts", "requests", "rollouts", "verdicts", "steps", "outcomes", "control"])
def test_every_record_is_there_with_its_place_key_headers_value_and_time(both, name):
    run, archived = both
    log = run.open_log()
    topic = run.names().topic(name)
    assert read_all(archived.open_log(), topic) == read_all(log, topic)
    assert archived.open_log().bounds(topic) == log.bounds(topic)
    log.close()


def test_a_follower_goes_on_from_where_it_is_told(both):
    _, archived = both
    log, topic = archived.open_log(), archived.names().topic("rollouts")
    partition, (first, end) = max(log.bounds(topic).items(), key=lambda item: item[1][1])
    assert end - first > 3
    follower = log.follow({(topic, partition): end - 3})
    assert [one.offset for one in follower.poll(0, 2)] == [end - 3, end - 2]
    assert follower.positions() == {(topic, partition): end - 1}
    assert [one.offset for one in follower.poll(0, 2)] == [end - 1]
    assert follower.poll(0, 2) == [] and follower.positions() == {(topic, partition): end}
    with pytest.raises(Lost, match=f"holds {first} to {end}"):
        follower.seek({(topic, partition): end + 1})


def test_whatever_would_write_is_refused_in_a_sentence(both):
    _, archived = both
    log = archived.open_log()
    for refused in (lambda: log.writer("x"), lambda: log.group("g", [], "m"), lambda: log.create([]), log.expire):
        with pytest.raises(UserError, match="is an archive; accepted: commands that only read"):
            refused()


def test_a_file_that_is_no_archived_topic_is_named(tmp_path):
    (tmp_path / "requests.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="requests.parquet' cannot be read"):
        ArchiveLog(tmp_path)
