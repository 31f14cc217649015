"""A password that was changed in its file is what the next connection signs in with."""

from __future__ import annotations

import pytest
from kafka.net.sasl import get_sasl_mechanism

from pipeline.log import kafka_client


@pytest.fixture
def file(tmp_path, monkeypatch):
    (tmp_path / "password").write_text("old\n")
    monkeypatch.setenv(kafka_client.PASSWORD_FILE, str(tmp_path / "password"))
    monkeypatch.setenv("SLUICE_KAFKA_SASL_USERNAME", "me")
    return tmp_path / "password"


def signs_in_with(config: dict, mechanism: str) -> bytes:
    """The password of a connection that is made now, by a client that has had this configuration all along."""
    made = get_sasl_mechanism(mechanism)(host="k", **config | {"sasl_mechanism": mechanism})
    return made.auth_bytes().split(b"\0")[-1] if mechanism == "PLAIN" else made._scram_client.password


@pytest.mark.parametrize("mechanism", kafka_client.BY_PASSWORD)
def test_the_next_connection_has_the_password_that_the_file_holds_by_then(file, mechanism):
    config = kafka_client.settings("k:1", 1.0)
    assert signs_in_with(config, mechanism) == b"old"
    file.write_text("new\n")
    assert signs_in_with(config, mechanism) == b"new"
    for missing in (lambda: file.write_text(""), file.unlink):
        missing()
        assert signs_in_with(config, mechanism) == b"old", "what is being replaced ends no process"


def test_a_password_of_the_environment_stays_what_it_is(monkeypatch):
    monkeypatch.delenv(kafka_client.PASSWORD_FILE, raising=False)
    monkeypatch.setenv("SLUICE_KAFKA_SASL_USERNAME", "me")
    monkeypatch.setenv("SLUICE_KAFKA_SASL_PASSWORD", "given")
    assert signs_in_with(kafka_client.settings("k:1", 1.0), "PLAIN") == b"given"
