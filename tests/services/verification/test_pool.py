import json
import os
import signal
import threading
import time

import pytest

from pipeline.errors import UserError
from services.verification.pool import Pool, cores
from services.verification.worker import Job

CHECK = '''
"""Does what its answer says."""
import os
import time
from dataclasses import dataclass
from typing import ClassVar

from services.verification.finding import correct


@dataclass(frozen=True)
class Obey:
    version: ClassVar[str] = "1"

    def __call__(self, answer_text, spec):
        match answer_text.split():
            case ["spin"]:
                while True:
                    pass
            case ["sleep", seconds]:
                time.sleep(float(seconds))
            case ["until", path]:
                while not os.path.exists(path):
                    time.sleep(0.05)
            case ["crash"]:
                os._exit(3)
            case ["raise"]:
                raise RuntimeError("broken" * 1000)
            case ["memory"]:
                return correct(str(len(bytearray(10**12))))
        return correct(answer_text)
'''


@pytest.fixture(scope="module")
def obey(tmp_path_factory):
    path = tmp_path_factory.mktemp("check") / "obey.py"
    path.write_text(CHECK)

    def job(order, cpu_s=1.0, wall_s=60.0):
        return Job("{}", order, str(path), "", "", cpu_s, wall_s)

    return job


@pytest.fixture(scope="module")
def pool(obey):
    pool = Pool(workers=2)
    assert pool.warm().name == "CORRECT"
    yield pool
    pool.close()


def test_findings_come_in_the_order_of_the_jobs(pool, obey):
    found = pool.run([obey(f"say {number}") for number in range(1000)])
    assert [one.evidence for one in found] == [f"say {number}" for number in range(1000)]


def test_a_job_that_uses_up_its_cpu_limit_is_a_timeout(pool, obey):
    (found,) = pool.run([obey("spin", cpu_s=0.3)])
    assert (found.name, found.reason, found.cpu_s) == ("TIMEOUT", "cpu_limit", 0.3)


def test_a_job_that_waits_without_using_cpu_is_our_failure(pool, obey):
    began = time.monotonic()
    (found,) = pool.run([obey("sleep 60", wall_s=0.5)])
    assert (found.name, found.reason) == ("INFRA_ERROR", "wall_limit")
    assert time.monotonic() - began < 3


def test_a_worker_that_crashes_is_our_failure_and_is_replaced(pool, obey):
    found = pool.run([obey("crash"), obey("a"), obey("b")])
    assert (found[0].name, found[0].reason) == ("INFRA_ERROR", "worker_died")
    assert [one.name for one in found[1:]] == ["CORRECT", "CORRECT"]


def test_a_check_that_raises_is_our_failure_with_a_bounded_reason(pool, obey):
    (found,) = pool.run([obey("raise")])
    assert (found.name, found.reason) == ("INFRA_ERROR", "check_raised")
    assert found.evidence.startswith("RuntimeError: broken")
    assert len(found.evidence) <= 500


def test_a_job_that_wants_too_much_memory_is_a_timeout_that_says_so(pool, obey):
    (found,) = pool.run([obey("memory")])
    assert (found.name, found.reason) == ("TIMEOUT", "memory_limit")


def test_one_hanging_job_delays_no_other(pool, obey):
    jobs = [obey(f"say {number}") for number in range(200)]
    jobs[50] = obey("sleep 60", wall_s=3.0)
    ready = []
    threads = [threading.Thread(target=lambda: ready.append((time.monotonic(), pool.run(jobs))))]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    (quick,) = pool.run([obey("quick")])
    assert quick.name == "CORRECT"
    assert time.monotonic() - began < 2.5
    threads[0].join(timeout=30)
    _, found = ready[0]
    assert [one.name for one in found].count("CORRECT") == 199
    assert found[50].reason == "wall_limit"


def test_jobs_that_only_wait_take_no_workers_place_and_their_workers_end_later(obey, monkeypatch, tmp_path):
    monkeypatch.setattr("services.verification.pool.PARKED_S", 0.3)
    pool, found = Pool(workers=2, waiting=10), []
    waiting = [obey(f"until {tmp_path}/now", wall_s=200.0)] * 8
    try:
        pool.run([obey("a")] * 4)
        asleep = threading.Thread(target=lambda: found.extend(pool.run(waiting)))
        asleep.start()
        time.sleep(0.1)
        assert {one.name for one in pool.run([obey("quick")] * 50)} == {"CORRECT"}
        assert asleep.is_alive() and len(pool.pids()) >= 9, "eight wait side by side, and one answers"
        (tmp_path / "now").touch()
        asleep.join(timeout=60)
        assert [one.name for one in found] == ["CORRECT"] * 8
        deadline = time.monotonic() + 30
        while len(pool.pids()) > 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(pool.pids()) <= 2, "a slot that was never needed has no worker yet"
        assert pool.run([obey("again")])[0].name == "CORRECT"
    finally:
        pool.close()


def test_jobs_that_burn_cpu_do_not_multiply_the_workers(obey):
    pool = Pool(workers=2, waiting=10)
    try:
        pool.run([obey("a")] * 4)
        burning = threading.Thread(target=lambda: pool.run([obey("spin", cpu_s=0.7)] * 4))
        burning.start()
        most = 0
        while burning.is_alive():
            most = max(most, len(pool.pids()))
            time.sleep(0.05)
        assert most == 2
    finally:
        pool.close()


def test_several_hanging_jobs_in_one_batch_each_get_their_own_verdict(pool, obey):
    jobs = [obey("spin", cpu_s=0.2) if number % 20 == 7 else obey("fine") for number in range(100)]
    found = pool.run(jobs)
    assert [one.name for one in found] == ["TIMEOUT" if number % 20 == 7 else "CORRECT" for number in range(100)]


def test_a_worker_killed_from_outside_costs_one_job_at_most(pool, obey):
    found = []
    thread = threading.Thread(target=lambda: found.extend(pool.run([obey("sleep 0.01")] * 100)))
    thread.start()
    time.sleep(0.2)
    os.kill(pool.pids()[0], signal.SIGKILL)
    thread.join(timeout=30)
    names = [one.name for one in found]
    assert len(names) == 100
    assert names.count("INFRA_ERROR") <= 1
    assert pool.run([obey("again")])[0].name == "CORRECT"


def test_an_idle_worker_killed_from_outside_is_replaced(pool, obey):
    for pid in pool.pids():
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    found = pool.run([obey("a")] * 50)
    assert sum(one.name == "INFRA_ERROR" for one in found) <= 2
    assert all(one.retryable for one in found if one.name == "INFRA_ERROR")


def test_a_closed_pool_leaves_no_process_behind(obey):
    pool = Pool(workers=2)
    pool.run([obey("a")] * 4)
    pids = pool.pids()
    pool.close()
    assert pids
    time.sleep(0.2)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="closed"):
        pool.run([obey("a")])


def test_one_worker_checks_thousands_of_words_a_second():
    pool = Pool(workers=1)
    entry = {"question": "?", "answer": "olleh", "metadata": {"word": "hello"}}
    spec = json.dumps({"dataset": "spell_backward", "entry": entry})
    try:
        pool.run([Job("{}", "olleh", "reasoning_gym", "", spec)])
        began = time.monotonic()
        pool.run([Job("{}", f"olle{number}", "reasoning_gym", "", spec) for number in range(5000)])
        assert 5000 / (time.monotonic() - began) > 2000
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("quota", "told", "most"), [("max 100000", 48, 48), ("300000 100000", 48, 3), ("50000 100000", 48, 1)]
)
def test_a_container_has_the_cores_it_asked_for_and_no_more_than_its_quota(tmp_path, quota, told, most):
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cores(tmp_path, {"SLUICE_CPUS": str(told)}) == most
    assert cores(tmp_path, {}) == min(most, len(os.sched_getaffinity(0)))
    assert cores(tmp_path / "none", {"SLUICE_CPUS": ""}) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("memory", "most"), [("max", 96), (str(2 << 30), 32), (str(1 << 30), 16), (str(32 << 20), 1)])
def test_a_containers_memory_bounds_the_workers_64_mb_for_each(tmp_path, memory, most):
    (tmp_path / "memory.max").write_text(memory + "\n")
    assert cores(tmp_path, {"SLUICE_CPUS": "96"}) == most


@pytest.mark.parametrize("told", ["0", "-2", "1.5", "two", "²"])
def test_a_number_of_cores_that_is_none_is_refused(tmp_path, told):
    with pytest.raises(UserError, match=f"SLUICE_CPUS is '{told}'; accepted: a whole number of cores, 1 or more"):
        cores(tmp_path, {"SLUICE_CPUS": told})
