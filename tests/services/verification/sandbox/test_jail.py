import os
import subprocess
import sys
import time
from statistics import median

import psutil
import pytest

from services.verification.sandbox import JailLost, Limits, walls
from services.verification.sandbox.desk import Keeper
from services.verification.sandbox.jail import Jail
from services.verification.sandbox.running import BYSTANDER
from services.verification.sandbox.wire import pack, unpack

pytestmark = pytest.mark.sandbox
LEAVE_ALL = """
import ctypes, json, os, random, sys, time
json.dumps = random.random = None
sys.modules["math"] = None
sys.path.insert(0, "/tmp")
for folder in ["/", "/sluice", *(top for top, _, _ in os.walk("/dev")), "/usr", "/proc", "/proc/1", "/tmp"]:
    for name in ("x", ".hidden", "json.py"):
        try: open(f"{folder}/{name}", "w").write("left")
        except OSError: break
os.makedirs("/tmp/a/b"); os.symlink("/usr", "/tmp/l"); os.chmod("/tmp", 0o100)
os.mkfifo("/dev/shm/fifo")
from multiprocessing import shared_memory
shared = shared_memory.SharedMemory("left", create=True, size=1000)
ctypes.CDLL(None).shmget(0x1234, 4096, 0o1600)
if os.fork() == 0:
    os.setsid()
    for folder in ("/dev/shm", "/tmp"):
        try:
            while True: open(f"{folder}/{os.urandom(4).hex()}", "wb").write(bytes(10**6))
        except OSError: pass
    open("/dev/shm/full", "w").close()
    while True: pass
while not os.path.exists("/dev/shm/full"): time.sleep(0.01)
"""
SEE_ALL = """
import json, math, os, random, sys
own = [f"{d}/{n}" for top in ("/tmp", "/dev/shm") for d, _, names in os.walk(top) for n in names]
others = [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in (1, os.getpid())]
shared = open("/proc/sysvipc/shm").read().count(chr(10))
free = [os.statvfs(top).f_bavail * 4096 // 10**6 > 60 for top in ("/tmp", "/dev/shm")]
print(own, others, shared, json.dumps([1]), math.sqrt(4), random.random() < 1, "/tmp" in sys.path, free)
"""
CLEAN = b"['/tmp/answer.py'] [] 1 [1] 2.0 True False [True, True]"


@pytest.fixture
def jail():
    made = Jail()
    yield made
    made.close()


def program(jail, source, stdin=b"", limits=None):
    return jail.start("program", limits or Limits(), {"source": source}, stdin).finish()


def test_a_program_reads_its_input_and_its_output_is_read(jail):
    ran = program(jail, "print(input()[::-1])", b"olleh")
    assert (ran.why, ran.exit, ran.stdout, ran.flooded, ran.left) == ("", 0, b"hello\n", False, 0)
    assert 0 < ran.cpu_s < 1


def test_input_and_output_larger_than_a_pipe_pass_whole(jail):
    data = os.urandom(300_000).hex().encode()
    assert program(jail, "import sys; sys.stdout.write(sys.stdin.read())", data).stdout == data


@pytest.mark.parametrize("reuse", [True, False])
def test_the_next_job_sees_nothing_of_what_the_last_one_left(reuse):
    keeper = Keeper(reuse)
    for _ in range(3):
        with keeper.borrow("candidate") as jail:
            seen = program(jail, SEE_ALL)
            assert seen.stdout.startswith(CLEAN), seen
        with keeper.borrow("candidate") as jail:
            left = program(jail, LEAVE_ALL, limits=Limits(cpu_s=5, wall_s=60))
            assert (left.why, left.exit) == ("", 0) and left.left >= 1, left.stderr
    keeper.close()


def test_a_job_ended_for_anothers_fault_leaves_a_clean_jail_that_lives_on():
    jail = Jail(warm=False)
    running = jail.start("program", Limits(cpu_s=5, wall_s=60), {"source": LEAVE_ALL + "\nimport time; time.sleep(60)"})
    time.sleep(0.3)
    assert running.stop(BYSTANDER).why == BYSTANDER
    assert jail.good and program(jail, SEE_ALL).stdout.startswith(CLEAN)
    jail.close()


def test_the_next_job_is_not_slowed():
    keeper = Keeper(reuse=True)

    def took_s(source="print(1)"):
        """CPU time is the program's own; what it waited for the jail before it is in the wall time."""
        began = time.monotonic()
        with keeper.borrow("candidate") as jail:
            program(jail, source)
        return time.monotonic() - began

    took_s()
    before = median(took_s() for _ in range(20))
    after = []
    for _ in range(5):
        took_s(LEAVE_ALL)
        after.append(took_s())
    keeper.close()
    assert median(after) < 2 * before + 0.1


def test_nothing_of_the_caller_is_inside(jail, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    ran = program(jail, "import os; print(dict(os.environ), os.listdir('/proc/self/fd'), os.getcwd())")
    said = ran.stdout.decode()
    assert "hunter2" not in said and "['0', '1', '2', '3'] /tmp" in said


@pytest.mark.parametrize(
    ("source", "limits", "why"),
    [
        ("while True: pass", Limits(cpu_s=0.2, wall_s=60), "cpu"),
        ("import time; time.sleep(60)", Limits(wall_s=0.3), "wall"),
        ("a = []\nwhile True: a.append(bytearray(10**6))", Limits(memory_mb=100), "memory"),
        ("while True: print('x' * 5000)", Limits(output_kb=10, cpu_s=5), "output"),
    ],
)
def test_a_limit_ends_a_job_and_its_jail(source, limits, why):
    jail = Jail(warm=False)
    ran = program(jail, source, limits=limits)
    if why == "memory" and not ran.why:
        assert ran.exit == 1 and b"MemoryError" in ran.stderr
    else:
        assert (ran.why, jail.good) == (why, False)
    jail.close()


def test_functions_are_called_with_plain_data_and_keep_its_exact_types(jail):
    running = jail.start("calls", Limits(), {"source": "def f(x): return x", "entry": "f"})
    assert running.ask() == {"ready": True}
    for value in (1, True, 1.0, None, "é\ud800", (1, [2]), {1, 2}, {"a": {(1, 2): b"x"}}, 2**100, float("inf"), 1j):
        said = unpack(running.ask({"args": pack([value]), "kwargs": pack({})})["value"])
        assert (said, type(said)) == (value, type(value))
    assert running.finish().exit == 0


def test_what_is_no_plain_data_does_not_cross(jail):
    source = "class Any(int):\n  def __eq__(s, o): return True\ndef f(x): return [Any(3)]"
    running = jail.start("calls", Limits(), {"source": source, "entry": "f"})
    running.ask()
    assert running.ask({"args": pack([1]), "kwargs": pack({})}) == {"not_plain": "answer.Any"}
    running.finish()


def test_a_jail_dies_with_the_process_that_started_it():
    code = "from services.verification.sandbox.jail import Jail, Limits\nimport time\nj = Jail(False)\n"
    code += "j.start('program', Limits(cpu_s=30, wall_s=60), {'source': 'while True: pass'})\n"
    code += "print(j.pid, flush=True)\ntime.sleep(60)"
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ, text=True)
    pid = int(host.stdout.readline())
    inside = psutil.Process(pid).children(recursive=True)
    assert inside
    host.kill()
    host.communicate()
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline and any(alive(one) for one in inside):
        time.sleep(0.02)
    assert not any(alive(one) for one in inside)


def alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_keeper_lends_the_same_jail_again_unless_reuse_is_off():
    for reuse in (True, False):
        keeper = Keeper(reuse)
        with keeper.borrow("candidate") as first:
            pass
        with keeper.borrow("candidate") as second:
            assert (first is second) == reuse
        keeper.close()
        assert not first.good


def test_a_bubblewrap_that_cannot_start_says_why(monkeypatch):
    monkeypatch.setattr(walls, "python", lambda: walls.Python("/usr/bin/no-such-python"))
    with pytest.raises(JailLost, match="no-such-python"):
        Jail()


def test_a_missing_bubblewrap_is_a_wall_that_does_not_stand_and_says_the_cure(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    walls.refusal.cache_clear()
    assert "apt-get install bubblewrap" in walls.refusal()
    from services.verification.check.code_python import CodePython
    from sluice.v1.prompt_pb2 import CheckSpec

    found = CodePython()("print(1)", CheckSpec(spec_json='{"tests": [{"output": "1"}]}'))
    assert (found.name, found.reason) == ("INFRA_ERROR", "no_sandbox")
    walls.refusal.cache_clear()
