"""Fixtures of the whole suite, and what happens where a piece is missing.

- Tests marked `long` run only when `-m` asks for them (`make test-long`).
- Tests marked `kafka`, `vllm` or `sandbox` are skipped, with one loud line, where Java and Maven, vLLM, or a wall of
  the sandbox, are missing. With SLUICE_REQUIRE=kafka,vllm,sandbox a missing piece is a failure.
- `make test` has two processes that take a file at a time, the files with the most tests first.
"""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BROKER = Path(__file__).parent / "kafka" / "broker"
JARS = Path(__file__).parents[1] / ".kafka" / "libs" / "complete"
PIECES = ("kafka", "vllm", "sandbox")


@functools.cache
def missing(piece: str) -> str:
    """Why the tests of a piece cannot run here; empty when they can."""
    if piece == "vllm":
        return "" if importlib.util.find_spec("vllm") else "package 'vllm' is not installed"
    if piece == "sandbox":
        from services.verification.sandbox import walls

        return walls.refusal()
    if shutil.which("java") is None:
        return "'java' is not installed"
    if shutil.which("mvn") is None and not JARS.exists():
        return "'mvn' (Maven) is not installed"
    return ""


@pytest.fixture
def log(tmp_path, request):
    """An embedded log with the topics of the test module's NAMES."""
    from pipeline import topics
    from pipeline.log import open_log

    found = open_log(str(tmp_path / "log.db"))
    topics.create(found, request.module.NAMES, local=True)
    yield found
    found.close()


def required(piece: str) -> bool:
    """Is a missing piece a failure?"""
    return piece in os.environ.get("SLUICE_REQUIRE", "").replace(" ", "").split(",")


def pytest_collection_modifyitems(config, items):
    if "long" in (config.getoption("markexpr") or ""):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]


def pytest_runtest_setup(item):
    for piece in PIECES:
        reason = missing(piece) if item.get_closest_marker(piece) else ""
        if reason and required(piece):
            pytest.fail(f"{piece} is required by SLUICE_REQUIRE, but {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.stats.get("skipped", [])
    for piece in PIECES:
        number = sum(missing(piece) in str(report.longrepr) for report in reports) if missing(piece) else 0
        if number:
            line = f"!!! {number} TESTS OF {piece.upper()} WERE SKIPPED: {missing(piece)} !!!"
            terminalreporter.write_line(line, yellow=True, bold=True)


def broker(action: str, port: int | None = None) -> str:
    """Run tests/kafka/broker; what it says. Raises when it fails."""
    environment = os.environ | ({"KAFKA_PORT": str(port)} if port else {})
    command = [sys.executable, str(BROKER), action]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=700, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or done.stdout.strip())
    return done.stdout.strip()


@pytest.fixture(scope="session")
def kafka():
    """Address of a real Kafka broker; started when it does not run, and left running for the next session."""
    broker("start")
    return f"kafka://localhost:{os.environ.get('KAFKA_PORT', '9092')}"


@pytest.fixture
def other_kafka():
    """A broker of its own to stop and kill: (port, a function that runs one of the script's actions on it)."""
    port = int(os.environ.get("KAFKA_PORT", "9092")) + 100
    broker("start", port)
    yield port, lambda action: broker(action, port)
    broker("wipe", port)
