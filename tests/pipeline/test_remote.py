"""A run that begins elsewhere: `sluice start` once, `sluice prepare` where a service is to be."""

from __future__ import annotations

import pytest

from pipeline import config, remote
from pipeline.errors import LogUnavailable, NotReady, UserError
from pipeline.log import open_log
from pipeline.rundir import RunDir
from pipeline.topics import TOPICS, Names
from sluice.v1 import control_pb2

DATA = {"sources": [{"kind": "reasoning_gym", "name": "spell_backward", "size": 20}], "held_out": 4}


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Stands in for a cluster: every kafka:// address is one embedded log."""
    file = str(tmp_path / "log.db")
    monkeypatch.setattr(remote, "open_log", lambda address: open_log(file))
    return open_log(file)


def a_run(**changes) -> config.Run:
    return config.parse({"run": "far", "log": "kafka://k:1", "data": DATA} | changes)


def start(run: config.Run, make_topics: bool = True) -> list[str]:
    said: list[str] = []
    remote.start(run, make_topics, timeout_s=0.0, say=said.append)
    return said


def test_start_makes_topics_registers_prompts_and_tells_the_run_to_begin_and_twice_is_once(shared):
    run = a_run()
    for _ in range(2):
        assert "20 prompts registered" in start(run)
    names = Names("sluice", "far")
    assert len(shared.topics(names.own(""))) == len(TOPICS)
    told = remote.told(shared, names)
    assert (told.phase, told.config_digest) == (control_pb2.PHASE_RUNNING, config.identity_digest(run))


def test_another_run_of_the_same_name_is_refused_before_anything_is_written(shared):
    start(a_run())
    before = {topic: shared.bounds(topic) for topic in shared.topics("")}
    with pytest.raises(UserError, match="seed was 0, is 1"):
        start(a_run(seed=1))
    assert {topic: shared.bounds(topic) for topic in shared.topics("")} == before


def test_a_run_goes_on_where_its_kafka_got_another_broker_and_another_name(shared, tmp_path):
    start(a_run(log="kafka://a:9092,b:9092"))
    moved = a_run(log="kafka://bootstrap.other:9093,b:9092,c:9092")
    assert "run far may begin" in start(moved)
    RunDir.make(tmp_path / "dir", a_run(log="kafka://a:9092,b:9092"))
    directory = RunDir.make(tmp_path / "dir", moved)
    assert directory.run().log == "kafka://bootstrap.other:9093,b:9092,c:9092"
    remote.wait_for_start(directory, 0.0, print)


def test_a_run_on_kafka_never_goes_on_in_a_file_nor_the_other_way(tmp_path):
    kinds = ("embedded", "kafka://a:9092")
    for name, (old, new) in (("one", kinds), ("other", kinds[::-1])):
        RunDir.make(tmp_path / name, a_run(log=old))
        with pytest.raises(UserError, match="log was '.*', is '.*'; accepted: the old value, or another run"):
            RunDir.make(tmp_path / name, a_run(log=new))


def test_topics_that_somebody_else_makes_are_waited_for_by_name(shared):
    with pytest.raises(NotReady, match="topics prompts, requests"):
        start(a_run(), make_topics=False)


def test_topics_are_made_with_the_replicas_that_are_asked_for(shared, monkeypatch):
    asked = []
    monkeypatch.setattr("pipeline.log.embedded.EmbeddedLog.create", lambda self, topics: asked.extend(topics))
    for replicas in (0, 3):
        with pytest.raises(UserError, match="is not on the log"):
            remote.start(a_run(), True, 0.0, print, replicas)
    assert [one.replicas for one in asked] == [0] * len(TOPICS) + [3] * len(TOPICS)


def test_a_topic_that_nobody_leads_yet_is_waited_for(shared, monkeypatch):
    told, failures = remote.told, [LogUnavailable("log kafka://k:1 does not answer: NotLeaderForPartitionError")]

    def slow(log, names):
        if failures:
            raise failures.pop()
        return told(log, names)

    monkeypatch.setattr(remote, "told", slow)
    monkeypatch.setattr(remote, "POLL_S", 0.01)
    said: list[str] = []
    remote.start(a_run(), True, timeout_s=20.0, say=said.append)
    assert said[0].startswith("waiting: log kafka://k:1 does not answer") and "run far may begin" in said[-1]


def test_a_log_on_one_machine_is_refused():
    with pytest.raises(UserError, match="kafka://host:port"):
        start(a_run(log="embedded"))


def test_an_embedded_log_is_begun_where_it_is_and_a_run_that_was_told_something_is_told_nothing_more(tmp_path):
    directory = RunDir.make(tmp_path / "dir", a_run(log="embedded"))
    said: list[str] = []
    remote.start_here(directory, said.append)
    assert said == ["20 prompts registered", "run far may begin"]
    log, names = directory.open_log(), directory.names()
    control = remote.told(log, names)
    assert control.phase == control_pb2.PHASE_RUNNING
    remote.start_here(directory, said.append)
    assert (len(said), remote.told(log, names)) == (2, control)
    log.close()


def test_prepare_waits_until_the_run_was_told_to_begin(shared, tmp_path):
    directory = RunDir.make(tmp_path / "dir", a_run())
    said: list[str] = []
    with pytest.raises(NotReady, match="`sluice start` makes it"):
        remote.wait_for_start(directory, 0.0, said.append)
    start(a_run())
    remote.wait_for_start(directory, 0.0, said.append)
    with pytest.raises(UserError, match="max_tokens|seed"):
        remote.wait_for_start(RunDir.make(tmp_path / "other", a_run(seed=5)), 0.0, said.append)
