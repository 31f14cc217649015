"""A real Kafka with TLS and SCRAM: who may come in, and what everybody else is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT)]
from tests.kafka.secure import PASSWORDS, Broker  # noqa: E402

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


def begin(site: Broker, tmp_path: Path, user: str, word: str, authority: str = "", timeout: int = 90):
    """`sluice start` as this user; the password comes from a file."""
    run = tmp_path / "run.yaml"
    run.write_text(f"run: demo\nlog: kafka://{site.servers}\n{SMALL}\n")
    (tmp_path / "password").write_text(word)
    environment = {
        "SLUICE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "SLUICE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "SLUICE_KAFKA_SASL_USERNAME": user,
        "SLUICE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
        "SLUICE_KAFKA_SSL_CAFILE": authority or str(site.folder / "ca.crt"),
    }
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", "start", str(run), "--timeout", str(timeout)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert word not in done.stdout + done.stderr
    return done


def test_the_right_user_begins_a_run_over_tls(site, tmp_path):
    done = begin(site, tmp_path, "sluice", PASSWORDS["sluice"], timeout=200)
    assert done.returncode == 0, done.stderr
    assert "run demo may begin" in done.stdout


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
