"""Hostile programs, each with what must come of it. All are run as a program with one test: input "7", output "7".

`outcomes`: which verdicts are right. None may be CORRECT unless the program gives the right output by itself; what a
program tries on the way must fail inside, and `says` is then in its output.
"""

from __future__ import annotations

from dataclasses import dataclass

FAILED = frozenset({"WRONG", "TIMEOUT", "VIOLATION"})
HARMLESS = frozenset({"CORRECT"})


@dataclass(frozen=True)
class Hostile:
    """One program. With `HARMLESS` it ends by printing its input: what it tried before had no effect."""

    name: str
    source: str
    outcomes: frozenset[str]

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
    refused("write /sluice", "open('/sluice/services/verification/sandbox/zygote.py', 'w')"),
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
ALL = TIME + MEMORY + PROCESSES + OUTPUT + FILES + KERNEL + NETWORK + GRADER
