"""A start that came to nothing says why its last connection failed, though kafka-python says it only in its log."""

from __future__ import annotations

import logging

import pytest
from kafka import errors

from pipeline.errors import LogUnavailable, UserError
from pipeline.log import kafka_client

CAME_TO_NOTHING = errors.KafkaTimeoutError("Unable to bootstrap from ['k:1']")


@pytest.fixture(autouse=True)
def nothing_overheard(monkeypatch):
    monkeypatch.setattr(kafka_client.OVERHEARD, "_last", None)
    kafka_client.silence()


def fails(error: Exception) -> None:
    """What kafka-python writes of a connection that failed, and then of the start."""
    logger = logging.getLogger("kafka.net.manager")
    logger.warning("Bootstrap connection to %s failed: %s (backoff %.2f secs)", "bootstrap-0", error, 0.1)
    logger.error("Bootstrap failed: %s", CAME_TO_NOTHING)


def test_the_reason_of_the_last_connection_is_told(caplog):
    fails(errors.KafkaConnectionError("Handshake failed: certificate verify failed"))
    told = kafka_client.translated("k:1", CAME_TO_NOTHING)
    assert isinstance(told, LogUnavailable)
    assert "Handshake failed: certificate verify failed" in str(told) and "bootstrap" not in str(told)
    assert caplog.text == ""


def test_a_password_that_is_refused_is_the_users_to_correct():
    fails(errors.SaslAuthenticationFailedError("invalid credentials"))
    assert isinstance(kafka_client.translated("k:1", CAME_TO_NOTHING), UserError)


def test_a_hang_up_while_signing_in_asks_for_the_password(monkeypatch):
    fails(errors.KafkaConnectionError("socket disconnected"))
    assert "password" not in str(kafka_client.translated("k:1", CAME_TO_NOTHING))
    monkeypatch.setenv("SLUICE_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
    monkeypatch.setenv("SLUICE_KAFKA_SASL_USERNAME", "me")
    told = str(kafka_client.translated("k:1", CAME_TO_NOTHING))
    assert told.endswith("it hung up while 'me' signed in by SCRAM-SHA-512: are user and password right?")


def test_a_password_that_was_wrong_for_a_while_explains_no_later_outage(monkeypatch):
    fails(errors.SaslAuthenticationFailedError("invalid credentials"))
    monkeypatch.setattr(kafka_client, "OVERHEARD_S", 0.0)
    assert isinstance(kafka_client.translated("k:1", CAME_TO_NOTHING), LogUnavailable)


def test_a_last_try_that_had_no_time_left_hides_no_reason():
    short = errors.RequestTimedOutError("Request timed out after 257 ms")
    fails(short)
    assert "257 ms" in str(kafka_client.translated("k:1", CAME_TO_NOTHING))
    fails(errors.KafkaConnectionError("socket disconnected"))
    fails(short)
    assert "socket disconnected" in str(kafka_client.translated("k:1", CAME_TO_NOTHING))


def test_where_nothing_was_overheard_the_error_itself_is_told():
    assert "Unable to bootstrap" in str(kafka_client.translated("k:1", CAME_TO_NOTHING))
