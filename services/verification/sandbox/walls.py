"""Which walls stand on this machine. Where one is missing code is refused, with the reason and the cure."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from services.verification.sandbox import cgroup, seccomp

FIRST_UID, UIDS = 61_184, 2_000
"""User ids of jails when the service runs as root: they own nothing. One per launching process, so that process limits,
which the kernel counts per user, are not shared."""


@dataclass(frozen=True, slots=True)
class Wall:
    """`stands`: whether it does. `found`: what was found; and the cure, where it does not."""

    name: str
    stands: bool
    found: str


@dataclass(frozen=True, slots=True)
class Python:
    """The interpreter inside: `program`, and the folder that has to be seen for it ("" when /usr is enough)."""

    program: str
    folder: str = ""


def examine() -> list[Wall]:
    """Every wall, in the order in which a program meets them from inside out."""
    found = [_bubblewrap(), _filter(), _interpreter()]
    uid = unprivileged_uid()
    if uid is not None and shutil.which("setpriv") is None:
        found.append(
            Wall("unprivileged user", False, "'setpriv' is not installed; install util-linux, or do not be root")
        )
        return found
    who = f"jails run as user {uid}" if uid is not None else f"jails run as this user, {os.getuid()}, who is not root"
    found.append(Wall("unprivileged user", True, who))
    found.append(_cgroup())
    if all(wall.stands for wall in found):
        problem = _trial()
        cure = "; allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, or the container's "
        cure += "seccomp and AppArmor profile), or run the service where they are allowed"
        found.append(Wall("namespaces", not problem, problem + cure if problem else "a jail was started and answered"))
    return found


@lru_cache(maxsize=1)
def refusal() -> str:
    """Why no program may be run here; empty when it may. Looked at once per process."""
    fallen = [wall for wall in examine() if not wall.stands]
    return f"sandbox: {fallen[0].name}: {fallen[0].found}" if fallen else ""


def unprivileged_uid() -> int | None:
    """The user id to take before bubblewrap; None when this process is not root and stays who it is."""
    return FIRST_UID + os.getpid() % UIDS if os.getuid() == 0 else None


@lru_cache(maxsize=1)
def python() -> Python | None:
    """The first interpreter that the jail's user can read: ours, else the system's."""
    ours = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (ours, Path("/usr/bin/python3"), Path("/usr/local/bin/python3")):
        if program.is_file() and _readable(program):
            real = program.resolve()
            folder = "" if real.is_relative_to("/usr") else str(real.parents[1])
            return Python(str(real), folder)
    return None


def _readable(path: Path) -> bool:
    if os.getuid() != 0:
        return os.access(path, os.X_OK)
    real = path.resolve()
    return all(one.stat().st_mode & stat.S_IXOTH for one in (real, *real.parents))


def _bubblewrap() -> Wall:
    found = shutil.which("bwrap")
    cure = "'bwrap' is not installed; install bubblewrap (Debian: apt-get install bubblewrap)"
    return Wall("bubblewrap", found is not None, found or cure)


def _cgroup() -> Wall:
    refused = cgroup.refusal()
    home = os.environ.get(cgroup.VARIABLE)
    none = f"none delegated ({cgroup.VARIABLE}): rlimits and the zygote's own counting hold"
    return Wall("cgroup", not refused, refused or (f"jails live in {home}" if home else none))


def _filter() -> Wall:
    machine = f"{platform.system()} on {platform.machine()}"
    good = platform.system() == "Linux" and seccomp.supported()
    return Wall(
        "system-call filter", good, machine if good else f"none for {machine}; run it on Linux, x86_64 or aarch64"
    )


def _interpreter() -> Wall:
    found = python()
    cure = "no interpreter that the jail's user can read; install python3 under /usr"
    return Wall("interpreter", found is not None, found.program if found else cure)


def _trial() -> str:
    from services.verification.sandbox.jail import Jail
    from services.verification.sandbox.limits import JailLost

    try:
        jail = Jail(warm=False)
    except JailLost as error:
        return str(error)
    jail.close()
    return ""
