"""The inside of a jail: process 1, which forks one program at a time and leaves nothing of it behind.

It was started clean and learns nothing: the limits of a job come over its control socket, the source and the input over
pipes that only the fork reads. Its children cannot signal it or look into it (it is process 1 of their world, and not
dumpable). When the program ends, or has used up what it may use, every other process is killed and reaped, and the
two writable folders are emptied; where that is not possible it says so, and the jail is thrown away.

Runs on the jail's own Python with the standard library alone.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import resource
import runpy
import shutil
import signal
import socket
import sys
import time
import traceback
from typing import Any

from services.verification.sandbox.bodies import BODIES, CHANNEL, SOURCE

TICK_S, IDLE_TICK_S = 0.02, 0.3
"""How often a program is looked at that uses a CPU; and, in the end, one that waits."""
MAX_LEFT_BEHIND = 500
FOLDERS = ("/tmp", "/dev/shm")
PAGE = resource.getpagesize()
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_DUMPABLE = 4
WARM = "array bisect collections copy dataclasses datetime decimal fractions functools heapq itertools math operator "
WARM += "pkgutil random re statistics string tokenize typing zipimport"
"""What programs often import, and what running one needs: done once, so that a fork has it."""


def main(control_fd: int, warm: bool) -> None:
    """Serve jobs until the other side hangs up."""
    control = socket.socket(fileno=control_fd)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    _hide()
    resource.setrlimit(resource.RLIMIT_CPU, (resource.getrlimit(resource.RLIMIT_CPU)[1],) * 2)
    for name in WARM.split() if warm else ():
        __import__(name)
    if warm:
        _run_nothing()
    sys.path[:] = [path for path in sys.path if path != "/sluice"]
    gc.collect()
    gc.freeze()
    control.send(b'{"ready": true}')
    while True:
        order, fds = _receive(control)
        if order is None:
            os._exit(0)
        control.send(json.dumps(_job(control, order, fds)).encode())


def _run_nothing() -> None:
    """Run an empty program, so that what `runpy` makes at first use is there before any fork."""
    with open(SOURCE, "w", encoding="utf-8") as file:
        file.write("")
    runpy.run_path(SOURCE, run_name="__main__")
    _empty_folders()


def _receive(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next order; words that were meant for a job that had ended meanwhile are passed over."""
    while True:
        data, fds, _, _ = socket.recv_fds(control, 65536, 4)
        if not data or fds:
            return (json.loads(data) if data else None), fds


def _hide() -> None:
    """Nobody of the same user may open /proc/1/mem, its file descriptors or its environment."""
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _job(control: socket.socket, order: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    began, before = time.monotonic(), _children_cpu_s()
    pid = os.fork()
    if pid == 0:
        _become_the_program(control, order, fds)
    for fd in fds:
        os.close(fd)
    why, status, starved = _watch(control, order, pid, began, before)
    left = _kill_all(pid if status is None else 0)
    return {
        "why": why,
        "exit": None if status is None else os.waitstatus_to_exitcode(status),
        "cpu_s": max(0.0, _children_cpu_s() - before),
        "wall_s": time.monotonic() - began,
        "starved": starved,
        "left": left,
        "clean": _empty_folders(),
    }


def _watch(
    control: socket.socket, order: dict[str, Any], pid: int, began: float, before: float
) -> tuple[str, int | None, bool]:
    """Until the program ends or must end: (why it must, its wait status, whether it had to wait for a CPU)."""
    tick, seen = TICK_S, before
    while True:
        signal.sigtimedwait({signal.SIGCHLD}, tick)
        status = _reap(pid)
        if status is not None:
            return "", status, False
        why = _told(control)
        cpu_s, memory = _usage()
        if why == "lap":
            began, before = time.monotonic(), cpu_s
            continue
        why = why or _over(order, time.monotonic() - began, cpu_s - before, memory)
        if why:
            return why, None, _delay_s() > 0.25 * order["wall_s"]
        tick, seen = TICK_S if cpu_s > seen else min(2 * tick, IDLE_TICK_S), cpu_s


def _reap(pid: int) -> int | None:
    """Reap what has ended; the wait status of `pid` if it is among that."""
    found = None
    while True:
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if ended == 0:
            return found
        if ended == pid:
            found = status


def _told(control: socket.socket) -> str:
    """What the outside says meanwhile: "lap" (the clocks start anew), or why to end the job; empty for nothing."""
    said = ""
    while True:
        try:
            data = control.recv(256, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return said
        if not data:
            os._exit(0)
        said = data.decode()
        if said != "lap":
            return said


def _over(order: dict[str, Any], wall_s: float, cpu_s: float, memory: int) -> str:
    if cpu_s > order["cpu_s"]:
        return "cpu"
    if memory > order["memory_mb"] * 2**20:
        return "memory"
    return "wall" if wall_s > order["wall_s"] else ""


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _usage() -> tuple[float, int]:
    """CPU seconds of all children, dead and alive, and memory that the living hold for themselves, bytes."""
    cpu_s, memory = _children_cpu_s(), 0
    for pid in _others():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b") ")[2].split()
            with open(f"/proc/{pid}/statm", "rb") as file:
                pages = file.read().split()
        except OSError:
            continue
        # Its own time, and that of its own dead children: those are not yet counted as ours.
        cpu_s += sum(map(int, fields[11:15])) / CLOCK_TICKS
        memory += (int(pages[1]) - int(pages[2])) * PAGE
    return cpu_s, memory


def _delay_s() -> float:
    """How long the living waited for a CPU, seconds; 0 where the kernel does not say."""
    waited = 0
    for pid in _others():
        try:
            with open(f"/proc/{pid}/schedstat", "rb") as file:
                waited += int(file.read().split()[1])
        except (OSError, IndexError):
            continue
    return waited / 1e9


def _others() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]


def _kill_all(main_pid: int) -> int:
    """Kill and reap every process but this one; how many there were beside `main_pid`."""
    left = 0
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            ended, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            return left
        left += ended != main_pid


def _empty_folders() -> bool:
    """Whether the folders are as they were at first."""
    try:
        return all(_empty(folder) for folder in FOLDERS)
    except (OSError, RecursionError):
        return False


def _empty(folder: str) -> bool:
    os.chmod(folder, 0o700)
    space = os.statvfs(folder)
    if space.f_files - space.f_ffree > MAX_LEFT_BEHIND or os.listxattr(folder):
        return False
    with os.scandir(folder) as found:
        for entry in list(found):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
    os.utime(folder, (0, 0))
    return True


def _become_the_program(control: socket.socket, order: dict[str, Any], fds: list[int]) -> None:
    """In the fork: take the pipes, lose everything else, run, and end. Never returns."""
    control.detach()
    for target, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]):
        os.dup2(fd, target)
    os.closerange(CHANNEL + 1, 256)
    os.setsid()
    os.chdir("/tmp")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    _limit(order)
    code = 1
    try:
        code = BODIES[order["kind"]]()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001  # the program's own failure, told as Python tells it
        traceback.print_exc()
    finally:
        _end(code)


def _end(code: int) -> None:
    try:
        if "threading" in sys.modules:
            sys.modules["threading"]._shutdown()
        __import__("atexit")._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 255)


def _limit(order: dict[str, Any]) -> None:
    memory = order["memory_mb"] * 2**20
    limits = {
        resource.RLIMIT_AS: memory + 64 * 2**20,
        resource.RLIMIT_FSIZE: order["file_mb"] * 2**20,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: order["processes"],
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 65536,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for which, value in limits.items():
        resource.setrlimit(which, (value, value))
