"""How a jail is started: bubblewrap's command line, and the user, the files and the filter that it is given."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from services.verification.sandbox import seccomp, walls
from services.verification.sandbox.limits import FOLDER_MB, JailLost

_INSIDE = tuple(f"services/verification/sandbox/{name}" for name in ("wire", "bodies", "zygote"))
_ROOT = Path(__file__).resolve().parents[3]
_NAMESPACES = ("--unshare-user", "--unshare-all", "--disable-userns", "--cap-drop", "ALL", "--die-with-parent")
_NAMESPACES += ("--new-session", "--as-pid-1")

COMPILE_S = 60.0


def launch(control: int, warm: bool, before: list[str]) -> subprocess.Popen[bytes]:
    """Start a jail whose zygote serves the control socket `control`, a descriptor. Raises `JailLost`.

    `before`: what goes before the command, to put it where its limits are.
    """
    interpreter = walls.python()
    if interpreter is None:
        raise JailLost("no interpreter for the jail")
    with contextlib.ExitStack() as files:
        filter_fd = _file(seccomp.program(), files)
        inside = [_file(code, files) for code in _compiled(interpreter.program)]
        start = "import sys; sys.path.insert(0, '/sluice'); from services.verification.sandbox import zygote; "
        start += f"zygote.main({control}, {warm})"
        command = [*before, *_user(), "bwrap", *_NAMESPACES, *_files(interpreter, inside), "--clearenv"]
        command += ["--seccomp", str(filter_fd), "--", interpreter.program, "-I", "-S", "-B", "-c", start]
        return _popen(command, (filter_fd, *inside, control))


def _popen(command: list[str], descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=descriptors,
            cwd="/",
        )
    except OSError as error:
        raise JailLost(f"bubblewrap cannot be started: {error}") from error


def _user() -> list[str]:
    """What makes a root process nobody before bubblewrap; nothing for who is not root."""
    uid = walls.unprivileged_uid()
    if uid is None:
        return []
    # `Popen(user=...)` would fork, and a process with gRPC's threads in it cannot: its fork handlers may crash.
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]


def _files(interpreter: walls.Python, inside: list[int]) -> list[str]:
    """All that there is to see, read-only but for two small folders."""
    binds = ["--ro-bind", "/usr", "/usr", *_system_folders()]
    if interpreter.folder:
        binds += ["--ro-bind", interpreter.folder, interpreter.folder]
    binds += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/dev/shm"):
        binds += ["--size", str(FOLDER_MB * 2**20), "--perms", "0700", "--tmpfs", folder]
    for name, fd in zip(_INSIDE, inside, strict=True):
        binds += ["--ro-bind-data", str(fd), f"/sluice/{name}.pyc"]
    return [*binds, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]


def _file(data: bytes, files: contextlib.ExitStack) -> int:
    fd = os.memfd_create("sluice")
    files.callback(os.close, fd)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


@lru_cache(maxsize=1)
def _compiled(program: str) -> list[bytes]:
    """The inside as byte code of the interpreter that will run it: compiling it took a third of a jail's start."""
    work = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], doraise=True)"
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "code.pyc"
        return [
            _compile([program, "-I", "-S", "-c", work, f"{_ROOT / name}.py", str(found)], found) for name in _INSIDE
        ]


def _compile(command: list[str], found: Path) -> bytes:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise JailLost(f"the jail's interpreter does not compile its own inside: {error}") from error
    return found.read_bytes()


def _system_folders() -> list[str]:
    """/bin, /lib and the like: links into /usr where the system has merged them."""
    found = []
    for name in ("bin", "sbin", "lib", "lib64", "lib32"):
        path = Path("/") / name
        if path.is_symlink():
            found += ["--symlink", f"usr/{name}", f"/{name}"]
        elif path.is_dir():
            found += ["--ro-bind", str(path), str(path)]
    return found
