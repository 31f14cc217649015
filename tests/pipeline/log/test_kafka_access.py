"""A real Kafka with TLS and SCRAM: who may come in, and what everybody else is told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion

from pipeline.log import TopicConfig
from pipeline.log.kafka import KafkaLog
from pipeline.topics import Names
from pipeline.view import Watcher

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT)]
from tests.kafka.secure import PASSWORDS, Broker  # noqa: E402
from tests.pipeline.canaries import CANARY, all_that_is_said, by_tls, canaries_in, secrets, sluice  # noqa: E402
from tests.pipeline.log import rights  # noqa: E402
from tests.pipeline.log.patience import until_it_answers  # noqa: E402

pytestmark = [pytest.mark.long, pytest.mark.kafka]
SMALL = "data: {sources: [{kind: reasoning_gym, name: spell_backward, size: 50}], held_out: 8}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    broker = Broker("127.0.0.1", tmp_path_factory.mktemp("site") / "kafka")
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


def signing_in(site: Broker, tmp_path: Path, user: str, word: str) -> dict[str, str]:
    """The environment of this user; the password comes from a file."""
    (tmp_path / "password").write_text(word)
    return {
        "SLUICE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "SLUICE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "SLUICE_KAFKA_SASL_USERNAME": user,
        "SLUICE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
        "SLUICE_KAFKA_SSL_CAFILE": str(site.folder / "ca.crt"),
    }


def begin(site: Broker, tmp_path: Path, user: str, word: str, authority: str = "", timeout: int = 90,
          run: str = "demo", more: Sequence[str] = ()):  # fmt: skip
    """`sluice start` as this user."""
    file = tmp_path / "run.yaml"
    file.write_text(f"run: {run}\nlog: kafka://{site.servers}\n{SMALL}\n")
    environment = signing_in(site, tmp_path, user, word)
    if authority:
        environment["SLUICE_KAFKA_SSL_CAFILE"] = authority
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "pipeline.cli",
        "start",
        str(file),
        "--timeout",
        str(timeout),
        *more,
    ]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert word not in done.stdout + done.stderr
    return done


def test_the_right_user_begins_a_run_over_tls(site, tmp_path):
    done = begin(site, tmp_path, "sluice", PASSWORDS["sluice"], timeout=200)
    assert done.returncode == 0, done.stderr
    assert "run demo may begin" in done.stdout


def test_more_replicas_than_brokers_and_fewer_than_none_are_refused(site, tmp_path):
    for replicas, said in ((2, "is 2 and 1 broker is there; accepted: at most 1"), (-1, "is -1; accepted: 0, the")):
        asked = [f"--replicas={replicas}"]
        done = begin(site, tmp_path, "sluice", PASSWORDS["sluice"], timeout=200, run="many", more=asked)
        assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert f"replicas of 'sluice.many.prompts' {said}" in done.stderr


def test_a_wrong_password_is_told_from_a_broker_that_is_away(site, tmp_path):
    done = begin(site, tmp_path, "sluice", "not-the-password", timeout=5)
    assert done.returncode != 0
    assert "'sluice' signed in by SCRAM-SHA-512: are user and password right?" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_user_without_rights_is_told_so(site, tmp_path):
    done = begin(site, tmp_path, "poor", PASSWORDS["poor"])
    assert done.returncode == 2
    assert "refuses this user: TopicAuthorizationFailedError: it asked for CreateTopics, 'sluice." in done.stderr
    assert len(done.stderr.splitlines()[-1]) < 200


def test_another_authority_is_named_as_the_reason(site, tmp_path):
    done = begin(site, tmp_path, "sluice", PASSWORDS["sluice"], "/etc/ssl/certs/ca-certificates.crt", timeout=5)
    assert done.returncode != 0 and "certificate verify failed" in done.stderr


def change_password(site: Broker, user: str, word: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=site.here)
    admin.alter_user_scram_credentials([UserScramCredentialUpsertion(user, "SCRAM-SHA-512", word, iterations=4096)])
    admin.close()


def test_a_password_that_is_changed_while_a_process_runs_is_used_from_the_next_connection_on(
    site, tmp_path, monkeypatch
):
    for name, value in signing_in(site, tmp_path, "sluice", PASSWORDS["sluice"]).items():
        monkeypatch.setenv(name, value)
    log = KafkaLog(site.servers, patience_s=5.0)

    def send(writer, value):
        with writer.transaction() as transaction:
            transaction.send("changed", b"k", value)

    try:
        until_it_answers(lambda: log.create([TopicConfig("changed", 1)]))
        writer = until_it_answers(lambda: log.writer("first"))
        follower = log.follow({("changed", 0): 0})
        until_it_answers(lambda: send(writer, b"before"))
        change_password(site, "sluice", "cluster-test-3")
        (tmp_path / "password").write_text("cluster-test-3\n")
        site.stop()  # every connection ends
        site.start()
        until_it_answers(lambda: send(writer, b"after"))
        another = until_it_answers(lambda: log.writer("second"))
        until_it_answers(lambda: send(another, b"by another"))
        found = []
        deadline = time.monotonic() + 30
        while len(found) < 3 and time.monotonic() < deadline:
            found += [record.value for record in until_it_answers(lambda: follower.poll(1.0))]
        assert found == [b"before", b"after", b"by another"]
        for thing in (follower, another, writer):
            thing.close()
    finally:
        log.close()
        change_password(site, "sluice", PASSWORDS["sluice"])


def test_a_service_with_a_canary_in_every_secret_says_none_of_them(site, tmp_path, monkeypatch):
    environment = secrets(tmp_path) | by_tls(tmp_path) | signing_in(site, tmp_path, "sluice", CANARY)
    (tmp_path / "run.yaml").write_text(f"run: canary\nlog: kafka://{site.servers}\n{SMALL}\n")
    change_password(site, "sluice", CANARY)
    try:
        said = {}
        for command in (["start"], ["prepare", "--dir", str(tmp_path / "dir")]):
            done = sluice(*command, str(tmp_path / "run.yaml"), **environment)
            assert done.returncode == 0, done.stderr
            said[command[0]] = done.stdout + done.stderr
        said |= all_that_is_said(tmp_path / "dir", environment, monkeypatch)
    finally:
        change_password(site, "sluice", PASSWORDS["sluice"])
    assert "sluice.canary.workers" in said
    assert canaries_in(said, environment) == []


def look_until(log: KafkaLog, names: Names, condition, folder: Path, seconds: float = 150.0) -> None:
    """Wait for a view of the run; fails with what the services said."""
    watcher = until_it_answers(lambda: Watcher(log, names))
    deadline = time.monotonic() + seconds
    while not condition(until_it_answers(lambda: watcher.look(0.2))):
        said = "\n".join(f"{one.name}: {one.read_text()[-1500:]}" for one in folder.glob("*.log"))
        assert time.monotonic() < deadline, said
    watcher.close()


def test_a_job_runs_from_start_to_audit_under_the_rights_that_are_printed(site, tmp_path):
    rights.give(site.here, "least")
    users = {}
    for user in rights.USERS:
        (tmp_path / f"{user}.secret").mkdir()
        users[user] = signing_in(site, tmp_path / f"{user}.secret", user, rights.WORD)
    operator = users[rights.OPERATOR]
    file, directory = rights.run_file(tmp_path / "run.yaml", site.servers, "least"), str(tmp_path / "operator")
    log, names = KafkaLog(site.here), Names("sluice", "least")

    def done(*command: str) -> None:
        ended = rights.sluice(*command, env=operator)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    done("start", str(file))
    done("prepare", str(file), "--dir", directory)
    with rights.services(file, tmp_path, users):
        look_until(log, names, lambda view: view.step >= 3, tmp_path)
        done("eval", directory, "--prompts", "4", "--samples", "1")
        done("stop", directory, "--timeout", "120")
    done("audit", directory)
    done("audit", f"kafka://{site.servers}/least")
    done("topics", directory)
    assert log.bounds(names.topic("weights"))[0][0] > 0, "old weights are trimmed"
    assert sum(end for _, end in log.bounds(names.topic("dead-letters")).values()) == 0
    log.close()
