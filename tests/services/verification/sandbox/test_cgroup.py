import os
from pathlib import Path

import psutil
import pytest

from services.verification.sandbox import Limits, cgroup, walls
from services.verification.sandbox.jail import Jail

MOUNTS = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"]
TREE = Path(next(iter(MOUNTS), "/none"))
mine = pytest.mark.skipif(not os.access(TREE, os.W_OK), reason="no cgroup version 2 that this user may write")


@pytest.fixture
def home(monkeypatch):
    """A folder of the real tree, with the controllers that there are; here a test may make jails."""
    made = TREE / f"sluice-test-{os.getpid()}"
    made.mkdir()
    handed_on = [name for name in cgroup.CONTROLLERS if name in (made / "cgroup.controllers").read_text().split()]
    (made / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in handed_on))
    monkeypatch.setenv(cgroup.VARIABLE, str(made))
    yield made, handed_on
    made.rmdir()


def test_without_a_delegated_folder_nothing_is_asked_for_and_the_wall_says_what_holds_instead(monkeypatch):
    monkeypatch.delenv(cgroup.VARIABLE, raising=False)
    assert cgroup.refusal() == "" == "".join(cgroup.Cgroup().enter())
    (wall,) = [one for one in walls.examine() if one.name == "cgroup"]
    assert wall.stands and "rlimits" in wall.found


def test_a_folder_that_is_no_cgroup_is_refused_with_the_cure(monkeypatch, tmp_path):
    monkeypatch.setenv(cgroup.VARIABLE, str(tmp_path))
    assert "accepted: a folder of a cgroup version 2" in cgroup.refusal()


@mine
def test_a_folder_without_the_controllers_is_refused_with_the_cure(home):
    (home[0] / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in home[1]))
    assert "write '+memory +pids' to its cgroup.subtree_control" in cgroup.refusal()


@mine
@pytest.mark.sandbox
def test_a_jail_and_its_job_are_in_its_cgroup_from_the_first_and_it_is_gone_after_them(home):
    jail = Jail(warm=False)
    running = jail.start("calls", Limits(), {"source": "def f(): pass", "entry": "f"})
    assert running.ask() == {"ready": True}
    (folder,) = [one for one in home[0].iterdir() if one.is_dir()]
    members = set(map(int, (folder / "cgroup.procs").read_text().split()))
    assert members >= {one.pid for one in psutil.Process(jail.pid).children(recursive=True)}
    assert len(members) >= 3
    jail.close()
    assert not folder.exists()
    assert not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in members)


@mine
@pytest.mark.sandbox
def test_the_kernel_holds_memory_and_processes_of_the_whole_jail(home):
    if home[1] != list(cgroup.CONTROLLERS):
        pytest.skip("the kernel's memory and pids controllers are not in version 2 here")
    jail = Jail(warm=False)
    running = jail.start("calls", Limits(memory_mb=200, processes=10), {"source": "def f(): pass", "entry": "f"})
    running.ask()
    (folder,) = [one for one in home[0].iterdir() if one.is_dir()]
    assert int((folder / "memory.max").read_text()) == (200 + 64 + 2 * 64) * 2**20
    assert int((folder / "pids.max").read_text()) == 18
    running.finish()
    source = "import os, time\nfor _ in range(9):\n  if os.fork() == 0:\n    x = bytearray(9 * 10**7); time.sleep(9)\n"
    assert jail.start("program", Limits(memory_mb=200), {"source": source + "time.sleep(9)"}).finish().why == "memory"
    jail.close()
