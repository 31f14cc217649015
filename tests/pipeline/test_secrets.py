"""Secrets stay where they belong: with canaries in every secret, commands and a service say none of them, anywhere."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.pipeline.canaries import CANARY, all_that_is_said, by_tls, canaries_in, secrets, sluice

SMALL = "data: {sources: [{kind: reasoning_gym, name: spell_backward, size: 20}], held_out: 4}"


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return secrets(tmp_path)


def test_commands_against_a_log_and_a_door_that_refuse_say_no_secret(tmp_path, environment):
    run = tmp_path / "run.yaml"
    run.write_text("run: demo\nlog: kafka://127.0.0.1:1\n")
    said = ""
    for arguments in (
        ["doctor", str(run), "--door", "learning=127.0.0.1:1"],
        ["start", str(run), "--timeout", "0"],
        ["prepare", str(run), "--dir", str(tmp_path / "dir"), "--timeout", "0"],
    ):
        done = sluice(*arguments, **environment)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "does not answer" in done.stdout + done.stderr
        said += done.stdout + done.stderr
    written = [path for path in (tmp_path / "dir").rglob("*") if path.is_file()]
    assert written
    for text in (said, *(path.read_text(errors="replace") for path in written)):
        assert CANARY not in text


def test_a_bad_secret_is_named_by_its_place_and_never_by_what_it_holds(tmp_path, environment):
    (tmp_path / "tokens").write_text(f"root {CANARY}\n")
    run = tmp_path / "run.yaml"
    run.write_text("run: demo\nlog: kafka://127.0.0.1:1\n")
    done = sluice("doctor", str(run), "--door", "learning=127.0.0.1:1", **environment)
    assert done.returncode == 2
    assert "tokens file, line 1" in done.stderr
    assert CANARY not in done.stdout + done.stderr


def test_a_service_that_serves_and_refuses_says_no_secret(tmp_path, environment, monkeypatch):
    """The same on a real Kafka, with its password: tests/pipeline/log/test_kafka_access.py."""
    (tmp_path / "run.yaml").write_text(f"run: demo\n{SMALL}\n")
    environment |= by_tls(tmp_path)
    done = sluice("prepare", str(tmp_path / "run.yaml"), "--dir", str(tmp_path / "dir"), **environment)
    assert done.returncode == 0, done.stderr
    said = all_that_is_said(tmp_path / "dir", environment, monkeypatch)
    said["prepare"] = done.stdout + done.stderr
    assert "sluice_stage_calls_refused_total" in said["metrics"] and any("workers" in where for where in said)
    assert canaries_in(said, environment) == []


class Hub(BaseHTTPRequestHandler):
    """Refuses everybody, and remembers how he asked."""

    asked: list[str] = []

    def do_GET(self) -> None:
        Hub.asked.append(str(self.headers["Authorization"]))
        self.send_error(401)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_a_hub_that_refuses_a_token_is_told_of_without_it(tmp_path, environment):
    (tmp_path / "run.yaml").write_text(f"run: demo\n{SMALL}\nmodel: {{source: nobody/nothing}}\n")
    hub = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path / "hub")}
    run = ["prepare", str(tmp_path / "run.yaml"), "--dir", str(tmp_path / "dir"), "--model", "cold"]
    done = sluice(*run, **environment)
    hub.shutdown()
    hub.server_close()
    assert done.returncode == 2 and "the hub does not give it" in done.stderr
    assert f"Bearer hf_{CANARY}" in Hub.asked
    written = [file for folder in ("dir", "hub") for file in (tmp_path / folder).rglob("*") if file.is_file()]
    said = {"outputs": done.stdout + done.stderr} | {str(file): file.read_text(errors="replace") for file in written}
    assert canaries_in(said, environment) == []
