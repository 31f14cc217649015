"""The system-call filter, assembled here so that nothing has to be installed for it.

Everything is allowed but what a program that computes has no use for: looking into other processes, namespaces, mounts,
keyrings, kernel modules, System V memory (which would outlive a job), other processes' priorities and limits, and
sockets of families that no network namespace holds back. Refused calls fail with EPERM; `clone3` with ENOSYS, so that
C libraries fall back to `clone`, whose flags can be looked at.

Source: Linux' `seccomp(2)` and `unistd.h`. Odd cases: a call of another architecture (32-bit, x32) is refused whole.
"""

from __future__ import annotations

import platform
import struct

EPERM, ENOSYS = 1, 38
_CALLS = """
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, keyctl 250 219, add_key 248 217,
request_key 249 218, bpf 321 280, perf_event_open 298 241, userfaultfd 323 282, unshare 272 97, setns 308 268,
mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, kcmp 312 272, init_module 175 105,
finit_module 313 273, delete_module 176 106, kexec_load 246 104, kexec_file_load 320 294, reboot 169 142,
swapon 167 224, swapoff 168 225, shmget 29 194, shmat 30 196, shmctl 31 195, semget 64 190, semop 65 193,
semctl 66 191, semtimedop 220 192, msgget 68 186, msgsnd 69 189, msgrcv 70 188, msgctl 71 187, mq_open 240 180,
setpriority 141 140, sched_setscheduler 144 119, sched_setparam 142 118, sched_setaffinity 203 122,
sched_setattr 314 274, ioprio_set 251 30, migrate_pages 256 238, move_pages 279 239, name_to_handle_at 303 264,
open_by_handle_at 304 265, quotactl 179 60, acct 163 89, settimeofday 164 170, adjtimex 159 171,
clock_settime 227 112, clock_adjtime 305 266, syslog 103 116, personality 135 92, fanotify_init 300 262,
mbind 237 235, set_mempolicy 238 237, get_mempolicy 239 236, sethostname 170 161, setdomainname 171 162,
clone 56 220, ioctl 16 29, prlimit64 302 261, socket 41 198, io_uring_setup 425 425, io_uring_enter 426 426,
io_uring_register 427 427, open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431,
fsmount 432 432, fspick 433 433, pidfd_open 434 434, clone3 435 435, pidfd_getfd 438 438,
process_madvise 440 440, mount_setattr 442 442, memfd_secret 447 447
"""
"""Each call that is refused or looked at: its name, and its number on x86_64 and on aarch64."""
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_COLUMNS = tuple(_ARCHITECTURES)

_LOAD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NR, _ARCH = 0, 4
_NEW_NAMESPACE = 0x7E020080
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_FAMILIES = (1, 2, 10)
_LOOKED_AT = ("clone", "ioctl", "prlimit64", "socket", "clone3")


def supported(machine: str = platform.machine()) -> bool:
    """Whether the filter exists for this processor.

    >>> supported("x86_64"), supported("aarch64"), supported("riscv64")
    (True, True, False)
    """
    return machine in _ARCHITECTURES


def numbers(machine: str = platform.machine()) -> dict[str, int]:
    """System-call numbers by name.

    >>> numbers("x86_64")["ptrace"], numbers("aarch64")["ptrace"]
    (101, 117)
    """
    rows = (row.split() for row in _CALLS.split(","))
    return {name: int(columns[_COLUMNS.index(machine)]) for name, *columns in rows}


def program(machine: str = platform.machine()) -> bytes:
    """The filter as classic BPF, for bubblewrap's `--seccomp`."""
    number = numbers(machine)
    code = [_op(_LOAD, _ARCH), _op(_JEQ, _ARCHITECTURES[machine], 1, 0), _op(_RET, _KILL), _op(_LOAD, _NR)]
    if machine == "x86_64":
        code += [_op(_JGE, 0x40000000, 0, 1), _refuse(EPERM)]
    for name, value in sorted(number.items()):
        if name not in _LOOKED_AT:
            code += [_op(_JEQ, value, 0, 1), _refuse(EPERM)]
    code += [_op(_JEQ, number["clone3"], 0, 1), _refuse(ENOSYS)]
    code += _when(number["clone"], 0, [_op(_JSET, _NEW_NAMESPACE, 0, 1), _refuse(EPERM)])
    code += _when(number["ioctl"], 1, [_op(_JEQ, _TIOCSTI, 1, 0), _op(_JEQ, _TIOCLINUX, 0, 1), _refuse(EPERM)])
    code += _when(number["prlimit64"], 0, [_op(_JEQ, 0, 1, 0), _refuse(EPERM)])
    families = [_op(_JEQ, one, len(_FAMILIES) - place, 0) for place, one in enumerate(_FAMILIES)]
    code += _when(number["socket"], 0, [*families, _refuse(EPERM)])
    return b"".join([*code, _op(_RET, _ALLOW)])


def _when(number: int, argument: int, body: list[bytes]) -> list[bytes]:
    """`body` looks at the low half of an argument; when it falls through, the call is allowed."""
    whole = [_op(_LOAD, 16 + 8 * argument), *body, _op(_RET, _ALLOW)]
    return [_op(_JEQ, number, 0, len(whole)), *whole]


def _refuse(errno: int) -> bytes:
    return _op(_RET, _ERRNO | errno)


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)
