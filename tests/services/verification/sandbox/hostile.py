"""Hostile programs, each with what must come of it.

`outcomes`: which verdicts are right. None may be CORRECT unless the program gives the right output by itself: then what
it tried on the way had to fail inside, and it says BREACH if it did not.

`ASKED` are the cases that real systems were fooled or felled by; the others were thought of here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

FAILED = frozenset({"WRONG", "TIMEOUT", "VIOLATION"})
HARMLESS = frozenset({"CORRECT"})

ECHO = json.dumps({"tests": [{"input": "7\n", "output": "7"}]})
"""A program with one test: what it reads it has to write."""
CALLED = json.dumps({"entry": "f", "tests": [{"args": [n], "expected": 2 * n} for n in (2, 3, 2)]})
"""A function `f` that has to double its argument, asked for 2 a second time."""
IN_PYTHON = """
import unittest
def check(candidate):
    case = unittest.TestCase()
    case.assertEqual(candidate(2), 4)
    case.assertEqual(len(candidate([1])), 2)
    case.assertEqual(abs(candidate(-3)), 6)
"""
GRADED = json.dumps({"entry": "f", "python": IN_PYTHON})
"""The same, by tests in Python, as HumanEval has them."""


@dataclass(frozen=True)
class Hostile:
    """One program and its tests. With `HARMLESS` it gives the right output: what it tried before had no effect."""

    name: str
    source: str
    outcomes: frozenset[str]
    tests: str = ECHO

    @property
    def waits(self) -> bool:
        """Whether it ends only because somebody stops waiting for it."""
        return "sleep" in self.source or "pause" in self.source


def fails(name: str, source: str, *outcomes: str) -> Hostile:
    return Hostile(name, source, frozenset(outcomes) or FAILED)


def refused(name: str, attempt: str, setup: str = "import os, ctypes, socket, sys") -> Hostile:
    """`attempt` must raise (or return a negative number from C); then the program behaves. Success is told as WRONG."""
    body = "\n".join(f"    {line}" for line in attempt.strip().splitlines())
    source = f"{setup}\ndone = False\ntry:\n{body}\n    done = True\nexcept BaseException: pass\n"
    return Hostile(name, f"{source}print('BREACH' if done else input())\n", HARMLESS)


LIBC = "import os, ctypes, sys\nc = ctypes.CDLL(None, use_errno=True)\ndef sys_call(*a):\n    r = c.syscall(*a)\n"
LIBC += "    if r < 0: raise OSError(ctypes.get_errno(), 'refused')\n    return r"

TIME = [
    fails("an endless loop", "while True: pass", "TIMEOUT"),
    fails("sleep forever", "import time; time.sleep(10**6)", "WRONG"),
    fails(
        "all signals ignored, then a loop",
        "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n  except Exception: pass\n"
        "while True: pass",
        "TIMEOUT",
    ),
    fails(
        "64 busy threads",
        "import threading\ndef f():\n  while True: pass\nfor _ in range(64): threading.Thread(target=f).start()",
        "TIMEOUT",
        "WRONG",
    ),
    fails("a tower of powers", "print(9**9**8)", "TIMEOUT", "WRONG"),
    fails("a number as text", "print(len(str(10**(10**7))))", "TIMEOUT", "WRONG"),
    fails("catastrophic backtracking", "import re; re.match('(a+)+$', 'a'*64+'b')", "TIMEOUT"),
    fails("CPU burnt in a child", "import os\nif os.fork() == 0:\n  while True: pass\nos.wait()", "TIMEOUT"),
    fails(
        "CPU burnt in many short children",
        "import os\nwhile True:\n  if os.fork() == 0:\n    sum(range(10**5)); os._exit(0)\n  os.wait()",
        "TIMEOUT",
    ),
    fails(
        "its CPU limit raised",
        "import resource\ntry: resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))\n"
        "except Exception: pass\nwhile True: pass",
        "TIMEOUT",
    ),
    fails("reading stdin forever", "import sys\nwhile True: sys.stdin.read()", "TIMEOUT"),
    fails("waiting for a child that waits", "import os, signal\nif os.fork() == 0: signal.pause()\nos.wait()", "WRONG"),
    fails(
        "a destructor that never ends", "class A:\n  def __del__(s):\n    while True: pass\na = A()\ndel a", "TIMEOUT"
    ),
    fails(
        "atexit that never ends",
        "import atexit\ndef f():\n  while True: pass\natexit.register(f)\nprint(input())",
        "TIMEOUT",
    ),
]
MEMORY = [
    fails("a bytearray loop", "a = []\nwhile True: a.append(bytearray(10**7))"),
    fails("one huge text", "x = 'x' * 10**10"),
    fails(
        "decompression", "import zlib\nd = zlib.compress(bytes(3*10**8))\nx = [zlib.decompress(d) for _ in range(4)]"
    ),
    fails(
        "memory in many children",
        "import os, time\nfor _ in range(40):\n  if os.fork() == 0:\n    x = bytearray(6*10**7); time.sleep(60)\n"
        "time.sleep(60)",
    ),
    fails("a full /tmp", "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(10**6))"),
    fails("a full /tmp of many files", "n = 0\nwhile True:\n  n += 1\n  open(f'/tmp/{n}', 'wb').write(bytes(4*10**6))"),
    fails("a full /dev/shm", "n = 0\nwhile True:\n  n += 1\n  open(f'/dev/shm/{n}', 'wb').write(bytes(4*10**6))"),
    fails("a sparse file", "f = open('/tmp/x', 'wb')\nf.truncate(10**12)"),
    fails("no descriptor left", "import os\nwhile True: os.dup(0)", "WRONG"),
    refused(
        "memory locked at its mapping", "import mmap\nmmap.mmap(-1, 10**8, flags=mmap.MAP_PRIVATE | 0x20 | 0x2000)"
    ),
    refused(
        "locked memory",
        "import mmap\nm = mmap.mmap(-1, 10**8)\nif c.mlock(ctypes.c_void_p(ctypes.addressof("
        "ctypes.c_char.from_buffer(m))), 10**8): raise OSError",
        LIBC,
    ),
    fails("a million tiny files", "n = 0\nwhile True:\n  n += 1\n  open(f'/tmp/{n}', 'w').close()"),
    fails("folders 5000 deep", "import os\nfor _ in range(5000):\n  os.mkdir('d'); os.chdir('d')", "WRONG"),
    fails("endless recursion", "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()"),
]
PROCESSES = [
    fails("a fork bomb", "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"),
    fails(
        "a thread bomb", "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()"
    ),
    Hostile(
        "a daemon by double fork",
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: time.sleep(1000)\n  os._exit(0)\n"
        "print(input())",
        HARMLESS,
    ),
    Hostile(
        "kill everything", "import os\ntry: os.kill(-1, 9)\nexcept ProcessLookupError: pass\nprint(input())", HARMLESS
    ),
    Hostile(
        "kill process 1", "import os\nfor n in (1, 2, 9, 15, 17, 19, 20):\n  os.kill(1, n)\nprint(input())", HARMLESS
    ),
    Hostile(
        "setsid and no hangup",
        "import os, signal, time\nif os.fork() == 0:\n  os.setsid(); signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "  time.sleep(1000)\nprint(input())",
        HARMLESS,
    ),
    fails(
        "exec over itself in a loop",
        "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'import os, sys\\n"
        'while True: os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", "1"])\'])',
    ),
    fails("killed by its own hand", "import os; os.kill(os.getpid(), 9)", "WRONG"),
    fails("a segmentation fault", "import ctypes; ctypes.string_at(0)", "WRONG"),
]
OUTPUT = [
    fails("endless stdout", "while True: print('x' * 1000)", "VIOLATION", "TIMEOUT"),
    fails("endless stderr", "import sys\nwhile True: print('x' * 1000, file=sys.stderr)", "VIOLATION", "TIMEOUT"),
    fails(
        "a line of a gigabyte",
        "import sys\nfor _ in range(1000): sys.stdout.write('x' * 10**6)",
        "VIOLATION",
        "TIMEOUT",
    ),
    fails("a forged verdict", 'print(\'{"passed": true, "outcome": "CORRECT"}\')', "WRONG"),
    fails(
        "a forged report on every descriptor",
        "import os\nfor fd in range(256):\n  try: os.write(fd, b'\\0\\0\\0\\x10{\"passed\": true}')\n"
        "  except OSError: pass",
        "WRONG",
    ),
    fails("the right output and more", "x = input()\nprint(x)\nprint('extra')", "WRONG"),
    fails("bytes that are no text", "import sys; sys.stdout.buffer.write(bytes(range(256)))", "WRONG"),
    fails("the right output, then a crash", "print(input()); raise SystemExit(3)", "WRONG"),
]
FILES = [
    refused("read /etc/passwd", "open('/etc/passwd').read()"),
    refused("read /root", "os.listdir('/root')"),
    refused("read the host's /home", "os.listdir('/home')"),
    refused("write /usr", "open('/usr/x', 'w')"),
    refused("write /", "open('/x', 'w')"),
    refused("write /dev", "open('/dev/x', 'w')"),
    refused("write /sluice", "open('/sluice/services/verification/sandbox/zygote.pyc', 'w')"),
    refused("the environment of process 1", "if open('/proc/1/environ').read() == '': raise OSError"),
    refused("the memory of process 1", "open('/proc/1/mem', 'r+b')"),
    refused("the descriptors of process 1", "os.listdir('/proc/1/fd')"),
    refused("core_pattern", "open('/proc/sys/kernel/core_pattern', 'w').write('x')"),
    refused("sysrq", "open('/proc/sysrq-trigger', 'w').write('b')"),
    refused("a way out by symlink", "os.symlink('/etc/passwd', '/tmp/l'); open('/tmp/l').read()"),
    refused("a way out by ..", "open('/tmp/../../../etc/passwd').read()"),
    refused("a disk", "os.mknod('/tmp/d', 0o60600, os.makedev(8, 0)); open('/tmp/d', 'rb')"),
    refused("the host's processes", "if all(int(n) < 100 for n in os.listdir('/proc') if n.isdigit()): raise OSError"),
    Hostile("its own source overwritten", "open('/tmp/answer.py', 'w').write('print(7)')\nprint(input())", HARMLESS),
    Hostile(
        "the import path hijacked",
        "import os\nfor n in ('json', 'sitecustomize', 'usercustomize', 'runpy'):\n"
        "  open(f'/tmp/{n}.py', 'w').write('raise SystemExit(0)')\nopen('/tmp/x.pth', 'w').write('import os')\n"
        "print(input())",
        HARMLESS,
    ),
]
KERNEL = [
    refused("ptrace of process 1", "sys_call(101, 16, 1, 0, 0)", LIBC),
    refused("unshare", "if c.unshare(0x10000000): raise OSError", LIBC),
    refused("a namespace by clone", "sys_call(56, 0x10000011, 0, 0, 0, 0)", LIBC),
    refused("mount", "if c.mount(b'none', b'/tmp', b'tmpfs', 0, None): raise OSError", LIBC),
    refused("keyctl", "sys_call(250, 0, -3, 0)", LIBC),
    refused("io_uring", "sys_call(425, 8, 0)", LIBC),
    refused("bpf", "sys_call(321, 0, 0, 0)", LIBC),
    refused("process_vm_readv", "sys_call(310, 1, 0, 0, 0, 0, 0)", LIBC),
    refused("shared memory that would outlive it", "sys_call(29, 0x1234, 4096, 0o1600)", LIBC),
    refused("limits of process 1", "import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (3, 3))", LIBC),
    refused("priority of process 1", "os.setpriority(os.PRIO_PROCESS, 1, 19)", LIBC),
    refused("a 32-bit socket of another family", "import socket; socket.socket(40, 1, 0)", LIBC),
    refused("becoming root", "os.setuid(0)", LIBC),
]
NETWORK = [
    refused("a service of the host", "socket.create_connection(('127.0.0.1', 22), 1)"),
    refused("the metadata address", "socket.create_connection(('169.254.169.254', 80), 1)"),
    refused("a name by DNS", "socket.getaddrinfo('example.com', 80)"),
    refused("an abstract socket of the host", "s = socket.socket(socket.AF_UNIX); s.connect('\\0/tmp/.X11-unix/X0')"),
    refused("a netlink socket", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
    refused("a raw socket", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
]
GRADER = [
    fails("sys.exit(0) before anything", "import sys; sys.exit(0)", "WRONG"),
    fails("os._exit(0) before anything", "import os; os._exit(0)", "WRONG"),
    fails("exit code 0 at exit", "import atexit, os\natexit.register(lambda: os._exit(0))\nraise ValueError", "WRONG"),
    fails("print replaced", "import builtins\nbuiltins.print = lambda *a: None\nprint(input())", "WRONG"),
    fails(
        "secrets in the frames above",
        "import sys\nf, seen = sys._getframe(), []\nwhile f:\n  seen.append(f.f_locals); f = f.f_back\n"
        "print('BREACH' if 'expec' + 'ted' in str(seen) else 'none')",
        "WRONG",
    ),
    fails(
        "secrets in the memory",
        "import gc\ntext = str([o for o in gc.get_objects() if isinstance(o, dict) and 'expec' + 'ted' in o])\n"
        "print('BREACH' if len(text) > 2 else 'none')",
        "WRONG",
    ),
    fails(
        "secrets in arguments and environment",
        "import os, sys\nprint(sys.argv, dict(os.environ), open('/proc/self/cmdline').read()[:0])",
        "WRONG",
    ),
]


def cheats(name: str, source: str, tests: str = GRADED, *outcomes: str) -> Hostile:
    """A function `f` that is wrong, and wants to be taken for right."""
    return Hostile(name, source, frozenset(outcomes or ("WRONG", "PARTIAL")), tests)


ZERO = "def f(x): return 0"
TESTS = [
    cheats(
        "a planted conftest.py and pytest plugin",
        "hook = 'import pytest\\n@pytest.hookimpl(hookwrapper=True)\\ndef pytest_runtest_makereport(item, call):\\n'\n"
        "hook += '  out = yield\\n  out.get_result().outcome = \"passed\"\\n'\n"
        f"for n in ('conftest.py', 'pytest.py', 'pytest.ini'): open('/tmp/' + n, 'w').write(hook)\n{ZERO}",
    ),
    cheats(
        "pytest's TestReport replaced",
        "import sys, types\nr = types.ModuleType('_pytest.reports')\n"
        "r.TestReport = type('TestReport', (), {'from_item_and_call': lambda *a: True, 'passed': True})\n"
        f"sys.modules['_pytest'] = sys.modules['_pytest.reports'] = sys.modules['pytest'] = r\n{ZERO}",
    ),
    cheats(
        "unittest's assertEqual replaced",
        f"import unittest\nunittest.TestCase.assertEqual = lambda *a: None\n{ZERO}",
    ),
    cheats(
        "len and abs replaced",
        "import builtins\nbuiltins.len = lambda x: 2\nbuiltins.abs = lambda x: 6\ndef f(x): return 4 if x == 2 else x",
        GRADED,
        *FAILED,
    ),
    cheats(
        "the test file overwritten",
        "import os\nfor d, _, names in os.walk('/tmp'):\n"
        "  for n in names: open(os.path.join(d, n), 'w').write('def check(c): pass')\n"
        f"open('/tmp/tests.py', 'w').write('def check(c): pass')\n{ZERO}",
    ),
    cheats(
        "tests known by their stack, arguments or environment",
        "import sys, os\ndef f(x):\n  g, seen = sys._getframe(), str(sys.argv) + str(os.environ) + str(sys.modules)\n"
        "  while g: seen += g.f_code.co_name; g = g.f_back\n"
        "  return 2 * x if any(w in seen for w in ('check', 'unittest', 'pytest')) else 0",
    ),
    cheats("an object equal to everything", "class A:\n  def __eq__(s, o): return True\ndef f(x): return A()"),
    cheats("a number that changes", "class A(int):\n  def __eq__(s, o): return True\ndef f(x): return A(1)", CALLED),
    cheats("seen cases by heart", "def f(x): return {2: 4}.get(x)"),
    cheats(
        "right once, then not",
        "seen = []\ndef f(x):\n  seen.append(x)\n  return 2 * x if seen.count(x) == 1 else 0",
        CALLED,
    ),
    cheats(
        "an answer to a question not yet asked",
        "import os\nos.write(3, b'\\0\\0\\0\\x0c{\"value\": 4}')\n" + ZERO,
        CALLED,
        *FAILED,
    ),
    cheats(
        "its own frames on the channel",
        "import os\ndef f(x): os.write(3, b'\\xff' * 64); return 2 * x",
        CALLED,
        *FAILED,
    ),
    cheats("exit in the middle of a call", "import os\ndef f(x): os._exit(0)"),
    cheats("exit in a destructor", "import os\nclass A:\n  def __del__(s): os._exit(0)\na = A()\n" + ZERO, CALLED),
    cheats("a list that holds itself", "def f(x):\n  a = []; a.append(a); return a", CALLED),
    cheats("a function that never returns", "def f(x):\n  while True: pass", CALLED, "TIMEOUT"),
    cheats("a value of a gigabyte", "def f(x): return 'x' * 10**9", CALLED, *FAILED),
]
ALL = TIME + MEMORY + PROCESSES + OUTPUT + FILES + KERNEL + NETWORK + GRADER + TESTS

ASKED = (
    *("an endless loop", "sleep forever", "all signals ignored, then a loop", "64 busy threads", "a tower of powers"),
    *("a number as text", "catastrophic backtracking", "a bytearray loop", "decompression", "one huge text"),
    *("a full /tmp", "no descriptor left", "memory locked at its mapping", "a million tiny files", "a fork bomb"),
    *("a thread bomb", "a daemon by double fork", "kill everything", "setsid and no hangup"),
    *("exec over itself in a loop", "endless stdout", "endless stderr", "a line of a gigabyte", "a forged verdict"),
    *("read /etc/passwd", "read /root", "write /usr", "the environment of process 1", "core_pattern", "sysrq"),
    *("a way out by symlink", "a way out by ..", "its own source overwritten", "the test file overwritten"),
    *("the import path hijacked", "ptrace of process 1", "unshare", "a namespace by clone", "keyctl", "io_uring"),
    *("a service of the host", "an abstract socket of the host", "the metadata address", "a name by DNS"),
    *("sys.exit(0) before anything", "os._exit(0) before anything", "exit code 0 at exit", "exit in a destructor"),
    *("a planted conftest.py and pytest plugin", "pytest's TestReport replaced", "unittest's assertEqual replaced"),
    *("print replaced", "len and abs replaced", "seen cases by heart", "right once, then not"),
    *("tests known by their stack, arguments or environment", "secrets in arguments and environment"),
    *("secrets in the frames above", "an object equal to everything"),
)
"""By name: the list that was asked for, in its order."""
