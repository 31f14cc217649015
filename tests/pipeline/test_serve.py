"""A worker is whole or it is gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline import config, topics
from pipeline.rundir import RunDir
from tests.bench.runs import ROOT, SPELL

WORKER = """
import sys, types
from pipeline import serve

class Service:
    def __init__(self, context): self.context = context
    def register(self, server): return []
    def run(self): self.context.life.sleep(120)
    def status(self, status): {does}
    def close(self): pass

sys.modules["services.verification.service"] = types.SimpleNamespace(build=Service)
sys.exit(serve.serve("verification", sys.argv[1], "verification-0", serve.Ports("127.0.0.1:0")))
"""


@pytest.fixture
def directory(tmp_path):
    run = config.load(SPELL)
    made = RunDir.make(tmp_path / "run", run)
    log = made.open_log()
    topics.create(log, made.names(), local=True)
    log.close()
    return made.path


def test_a_worker_whose_report_dies_ends_and_says_why(directory):
    command = [sys.executable, "-c", WORKER.format(does="raise ValueError('no such figure')"), str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4, done.stderr
    assert "the worker ends, because report died: no such figure" in done.stderr


def test_a_worker_whose_threads_live_goes_on(directory):
    command = [sys.executable, "-c", WORKER.format(does="pass"), str(directory)]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(command, cwd=ROOT, capture_output=True, timeout=6, check=False)
