"""Secrets stay where they belong: a service process with canaries in every secret says none of them, anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CANARY = "canary-7d41c0ffee"


def sluice(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "pipeline.cli", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def secrets(tmp_path) -> dict[str, str]:
    """Every secret that Sluice takes, each with a canary in it."""
    (tmp_path / "password").write_text(CANARY)
    (tmp_path / "token").write_text(CANARY)
    (tmp_path / "tokens").write_text(f"admin {CANARY}\nread {CANARY}-2\n")
    return {
        "SLUICE_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "SLUICE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "SLUICE_KAFKA_SASL_USERNAME": "me",
        "SLUICE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password"),
        "SLUICE_TOKEN_FILE": str(tmp_path / "token"),
        "SLUICE_TOKENS_FILE": str(tmp_path / "tokens"),
        "SLUICE_LOG_LEVEL": "DEBUG",
    }


def test_commands_against_a_log_and_a_door_that_refuse_say_no_secret(tmp_path, secrets):
    run = tmp_path / "run.yaml"
    run.write_text("run: demo\nlog: kafka://127.0.0.1:1\n")
    said = ""
    for arguments in (
        ["doctor", str(run), "--door", "learning=127.0.0.1:1"],
        ["start", str(run), "--timeout", "0"],
        ["prepare", str(run), "--dir", str(tmp_path / "dir"), "--timeout", "0"],
    ):
        done = sluice(*arguments, folder=tmp_path, **secrets)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "does not answer" in done.stdout + done.stderr
        said += done.stdout + done.stderr
    written = [path for path in (tmp_path / "dir").rglob("*") if path.is_file()]
    assert written
    for text in (said, *(path.read_text(errors="replace") for path in written)):
        assert CANARY not in text


def test_a_bad_secret_is_named_by_its_place_and_never_by_what_it_holds(tmp_path, secrets):
    (tmp_path / "tokens").write_text(f"root {CANARY}\n")
    run = tmp_path / "run.yaml"
    run.write_text("run: demo\nlog: kafka://127.0.0.1:1\n")
    done = sluice("doctor", str(run), "--door", "learning=127.0.0.1:1", folder=tmp_path, **secrets)
    assert done.returncode == 2
    assert "tokens file, line 1" in done.stderr
    assert CANARY not in done.stdout + done.stderr
