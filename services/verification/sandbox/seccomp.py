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
_NAMES = [
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "unshare",
    "setns",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "kcmp",
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "reboot",
    "swapon",
    "swapoff",
    "shmget",
    "shmat",
    "shmctl",
    "semget",
    "semop",
    "semctl",
    "semtimedop",
    "msgget",
    "msgsnd",
    "msgrcv",
    "msgctl",
    "mq_open",
    "setpriority",
    "sched_setscheduler",
    "sched_setparam",
    "sched_setaffinity",
    "sched_setattr",
    "ioprio_set",
    "migrate_pages",
    "move_pages",
    "name_to_handle_at",
    "open_by_handle_at",
    "quotactl",
    "acct",
    "settimeofday",
    "adjtimex",
    "clock_settime",
    "clock_adjtime",
    "syslog",
    "personality",
    "fanotify_init",
    "mbind",
    "set_mempolicy",
    "get_mempolicy",
    "sethostname",
    "setdomainname",
    "clone",
    "ioctl",
    "prlimit64",
    "socket",
]
_X86_64 = [101, 310, 311, 250, 248, 249, 321, 298, 323, 272, 308, 165, 166, 155, 161, 312, 175, 313, 176, 246, 320, 169]
_X86_64 += [167, 168, 29, 30, 31, 64, 65, 66, 220, 68, 69, 70, 71, 240, 141, 144, 142, 203, 314, 251, 256, 279, 303]
_X86_64 += [304, 179, 163, 164, 159, 227, 305, 103, 135, 300, 237, 238, 239, 170, 171, 56, 16, 302, 41]
_AARCH64 = [117, 270, 271, 219, 217, 218, 280, 241, 282, 97, 268, 40, 39, 41, 51, 272, 105, 273, 106, 104, 294, 142]
_AARCH64 += [
    224,
    225,
    194,
    196,
    195,
    190,
    193,
    191,
    192,
    186,
    189,
    188,
    187,
    180,
    140,
    119,
    118,
    122,
    274,
    30,
    238,
    239,
]
_AARCH64 += [264, 265, 60, 89, 170, 171, 112, 266, 116, 92, 262, 235, 237, 236, 161, 162, 220, 29, 261, 198]
_NEW = {"io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429}
_NEW |= {"fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435}
_NEW |= {"pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "memfd_secret": 447}
_ARCHITECTURES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}

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
    return dict(zip(_NAMES, _ARCHITECTURES[machine][1], strict=True)) | _NEW


def program(machine: str = platform.machine()) -> bytes:
    """The filter as classic BPF, for bubblewrap's `--seccomp`."""
    number = numbers(machine)
    code = [_op(_LOAD, _ARCH), _op(_JEQ, _ARCHITECTURES[machine][0], 1, 0), _op(_RET, _KILL), _op(_LOAD, _NR)]
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
