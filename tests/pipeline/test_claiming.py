"""Records of any size: what is over 900 kB travels as a claim, and nobody notices."""

from __future__ import annotations

import os

import pytest

from pipeline import records
from pipeline.claiming import HEADER, ClaimingLog
from pipeline.errors import Poison
from pipeline.log import TopicConfig, open_log
from pipeline.log.api import read_all
from sluice.v1 import prompt_pb2


@pytest.fixture
def logs(tmp_path):
    inner = open_log(str(tmp_path / "log.db"))
    inner.create([TopicConfig("t", 1)])
    yield inner, ClaimingLog(inner, str(tmp_path / "claims"))
    inner.close()


def put(log, noun) -> None:
    writer = log.writer("w")
    with writer.transaction() as transaction:
        transaction.sends.append(records.encode("t", "k", noun))
    writer.close()


def big() -> prompt_pb2.Prompt:
    return prompt_pb2.Prompt(prompt_id="p", reference_solution="x" * 2_000_000)


def test_a_noun_of_two_megabytes_comes_back_whole(logs):
    inner, claiming = logs
    put(claiming, big())
    (on_the_log,) = read_all(inner, "t")
    assert len(on_the_log.value) < 1000 and on_the_log.header(HEADER) == b"1"
    (read,) = read_all(claiming, "t")
    assert records.decode(read) == big() and read.header(HEADER) is None


def test_a_small_noun_is_not_claimed(logs, tmp_path):
    inner, claiming = logs
    put(claiming, prompt_pb2.Prompt(prompt_id="p"))
    assert read_all(inner, "t")[0].header(HEADER) is None and not (tmp_path / "claims").exists()


def test_a_group_member_sees_the_payload(logs):
    _, claiming = logs
    put(claiming, big())
    reader = claiming.group("g", ["t"], "m")
    found = reader.poll(5.0)
    assert records.decode(found[0]) == big() and reader.assigned() == {("t", 0)}
    writer = claiming.writer("w2")
    with writer.transaction() as transaction:
        transaction.commit_offsets(reader, {("t", 0): found[0].offset + 1})
    assert claiming.backlog("g", "t") == 0
    writer.close()
    reader.close()


def test_a_claim_outside_the_store_is_poison(logs, tmp_path):
    inner, claiming = logs
    secret = tmp_path / "secret"
    secret.write_text("s" * 64)
    claim = prompt_pb2.Claim(uri=str(secret), sha256=b"0" * 32, size_bytes=64)
    writer = inner.writer("w")
    with writer.transaction() as transaction:
        headers = (("schema", b"Prompt/1.0"), (HEADER, b"1"))
        transaction.send("t", b"k", claim.SerializeToString(), headers)
    with pytest.raises(Poison, match="claim"):
        records.decode(read_all(claiming, "t")[0])


def test_a_payload_that_was_changed_is_poison(logs, tmp_path):
    _, claiming = logs
    put(claiming, big())
    (file,) = (tmp_path / "claims").iterdir()
    os.chmod(file, 0o644)
    file.write_bytes(b"y" * file.stat().st_size)
    with pytest.raises(Poison, match="claim"):
        records.decode(read_all(claiming, "t")[0])
