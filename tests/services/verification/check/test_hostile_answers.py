"""A hundred hostile answers to a question of mathematics: none runs code, takes over 2 s or 512 MB, or is right."""

import importlib.util
import resource
from pathlib import Path

import psutil
import pytest

from services.verification import worker
from services.verification.check.math import Math
from services.verification.pool import Pool
from services.verification.worker import Job

_spec = importlib.util.spec_from_file_location("hostile_answers", Path(__file__).with_name("hostile_answers.py"))
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)

MOST_S, MOST_MB = 2.0, 512


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Workers that stand in an empty folder, as the check's own limits make them."""
    monkeypatch.chdir(tmp_path)
    made = Pool(workers=2)
    made.warm()
    yield made
    made.close()


def test_there_are_a_hundred_different_ones():
    assert len(set(hostile.ANSWERS)) == len(hostile.ANSWERS) >= 100


def test_no_hostile_answer_runs_code_or_takes_over_two_seconds_or_is_right(pool, tmp_path):
    said = [rf"\boxed{{{one}}}" if n % 2 else one for n, one in enumerate(hostile.ANSWERS)]
    jobs = [Job("{}", one, "math", "-17", "", Math.cpu_s, 60.0) for one in said]
    found = pool.run(jobs)
    wrong = {one for one in found if one.name not in ("WRONG", "UNPARSABLE", "TIMEOUT")}
    assert not wrong, [(job.answer[:60], one) for job, one in zip(jobs, found, strict=True) if one in wrong]
    assert max(one.cpu_s for one in found) <= MOST_S
    assert list(tmp_path.iterdir()) == []
    assert pool.run([Job("{}", "5", "math", "5", "")])[0].name == "CORRECT"


def test_a_worker_that_checks_mathematics_cannot_grow_by_more_than_half_a_gigabyte(pool):
    pool.run([Job("{}", "5", "math", "5", "")] * 8)
    for pid in pool.pids():
        held = psutil.Process(pid)
        most, _ = held.rlimit(resource.RLIMIT_AS)
        assert 0 < most - held.memory_info().vms <= MOST_MB * 2**20
    found = [worker.run(Job("{}", "5", "math", "5", ""))]
    assert found[0].cpu_s > 0
