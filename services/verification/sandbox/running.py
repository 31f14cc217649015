"""A job in a jail, from outside: what it is given, what it says until it has ended, and how it ended."""

from __future__ import annotations

import array
import contextlib
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from services.verification.sandbox.limits import JailLost, Limits, Ran
from services.verification.sandbox.wire import frame, unframe

GRACE_S = 1.0
READ = 65536
FLOOD = 16
"""A job is ended when it has written so many times what is kept of its output."""
LAP_S = 0.01
BYSTANDER = "bystander"
"""Why a job is ended that did nothing wrong: what it worked with elsewhere has failed. Its jail lives on."""


class Home(Protocol):
    """The jail that a job is in."""

    def close(self) -> str:
        """End it; what it said of itself."""
        ...

    def memory_kills(self) -> int:
        """How many processes in it the kernel has killed for their memory."""
        ...


class Running:
    """A job that runs. Its channel speaks frames; its output is read all the while, so that it never blocks on us."""

    def __init__(
        self,
        control: socket.socket,
        jail: Home,
        kind: str,
        limits: Limits,
        given: dict[str, Any],
        stdin: bytes,
    ) -> None:
        """`control` leads to the zygote of the `jail`."""
        self._control, self._jail, self._limits = control, jail, limits
        self._kills = jail.memory_kills()
        self._report: dict[str, Any] | None = None
        self._lapped = time.monotonic()
        self._inbox, self._outbox = bytearray(), bytearray(frame(given))
        self._stdin = memoryview(stdin)
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._written = 0
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._open: dict[str, Any] = {}
        self._begin(kind)

    def ask(self, message: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Say something on the channel, if anything, and wait for its next frame; None when it ended instead.

        Raises `ValueError` when what comes is no frame, `JailLost` when the jail does not answer.
        """
        if message is not None:
            self.say(message)
        if time.monotonic() - self._lapped > LAP_S:
            self._tell("lap")
            self._lapped = time.monotonic()
        self._pump(lambda: self._report is not None or self._whole())
        return unframe(self._inbox)

    def say(self, message: dict[str, Any]) -> None:
        """Put something on the channel."""
        self._outbox += frame(message)
        self._want_channel()

    def finish(self) -> Ran:
        """Hang up, and wait for the end. Raises `JailLost` when it does not come."""
        if not self._outbox:
            self._drop("channel")
        self._pump(lambda: self._report is not None)
        report = self._report or {}
        self._pump_rest()
        for name in list(self._open):
            self._drop(name)
        self._selector.close()
        if report["exit"] == -signal.SIGKILL and self._jail.memory_kills() > self._kills:
            report["why"] = "memory"
        flooded = self._written > self._limits.output_kb * 1024
        if report["why"] not in ("", BYSTANDER) or not report["clean"]:
            self._jail.close()
        return Ran(
            report["why"],
            report["exit"],
            report["cpu_s"],
            report["wall_s"],
            report["starved"],
            flooded,
            report["left"],
            bytes(self._kept["stdout"]),
            bytes(self._kept["stderr"]),
        )

    def stop(self, why: str) -> Ran:
        """End it by force."""
        if self._report is None:
            self._tell(why)
        return self.finish()

    def _begin(self, kind: str) -> None:
        limits = self._limits
        order = {"kind": kind, "cpu_s": limits.cpu_s, "wall_s": limits.wall_s, "memory_mb": limits.memory_mb}
        order |= {"file_mb": limits.file_mb, "processes": limits.processes}
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        ours_err, theirs_err = os.pipe()
        ours, theirs = socket.socketpair()
        self._open = {"stdin": ours_in, "stdout": ours_out, "stderr": ours_err, "channel": ours}
        fds = array.array("i", [theirs_in, theirs_out, theirs_err, theirs.fileno()])
        try:
            self._control.sendmsg([json.dumps(order).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        except OSError as error:
            raise self._lost(f"the jail takes no job: {error}") from error
        finally:
            for fd in fds[:3]:
                os.close(fd)
            theirs.close()
        for one in (ours_in, ours_out, ours_err):
            os.set_blocking(one, False)
        ours.setblocking(False)
        self._selector.register(self._control, selectors.EVENT_READ, "control")
        self._selector.register(ours_out, selectors.EVENT_READ, "stdout")
        self._selector.register(ours_err, selectors.EVENT_READ, "stderr")
        self._selector.register(ours, selectors.EVENT_READ | selectors.EVENT_WRITE, "channel")
        if self._stdin:
            self._selector.register(ours_in, selectors.EVENT_WRITE, "stdin")
        else:
            self._drop("stdin")

    def _pump(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._limits.wall_s + GRACE_S + self._limits.cpu_s
        while not ready():
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._lost("the jail does not say that the job has ended")
            for key, _ in self._selector.select(left):
                if key.data in self._open or key.data == "control":
                    getattr(self, f"_do_{key.data}")()

    def _pump_rest(self) -> None:
        """All writers are dead: what is in the pipes is what there is."""
        for name in ("stdout", "stderr"):
            while name in self._open and self._take(name):
                pass
        if "channel" in self._open:
            self._do_channel()

    def _do_control(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._lost(f"the jail is gone: {error}") from error
        if not data:
            raise self._lost("the jail is gone")
        self._report = json.loads(data)

    def _do_stdout(self) -> None:
        self._take("stdout")

    def _do_stderr(self) -> None:
        self._take("stderr")

    def _take(self, name: str) -> bool:
        try:
            data = os.read(self._open[name], READ)
        except BlockingIOError:
            return False
        if not data:
            self._drop(name)
            return False
        room = self._limits.output_kb * 1024
        self._written += len(data)
        self._kept[name] += data[: max(0, room - len(self._kept[name]))]
        if self._written > FLOOD * room and not self._stopping and self._report is None:
            self._stopping = True
            self._tell("output")
        return True

    def _do_stdin(self) -> None:
        try:
            self._stdin = self._stdin[os.write(self._open["stdin"], self._stdin[:READ]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._stdin = self._stdin[:0]
        if not self._stdin:
            self._drop("stdin")

    def _do_channel(self) -> None:
        channel = self._open["channel"]
        try:
            if self._outbox:
                del self._outbox[: channel.send(self._outbox)]
            self._want_channel()
            data = channel.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._outbox.clear()
            self._drop("channel")
        self._inbox += data

    def _want_channel(self) -> None:
        if "channel" in self._open:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)
            self._selector.modify(self._open["channel"], wanted, "channel")

    def _whole(self) -> bool:
        size = int.from_bytes(self._inbox[:4], "big") if len(self._inbox) >= 4 else 0
        return len(self._inbox) >= 4 + size and len(self._inbox) >= 4 or size > len(self._inbox) + FLOOD * 2**20

    def _drop(self, name: str) -> None:
        one = self._open.pop(name, None)
        if one is None:
            return
        with contextlib.suppress(KeyError):
            self._selector.unregister(one)
        if isinstance(one, int):
            os.close(one)
        else:
            one.close()

    def _tell(self, word: str) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._control.send(word.encode())

    def _lost(self, reason: str) -> JailLost:
        for name in list(self._open):
            self._drop(name)
        said = self._jail.close()
        return JailLost(f"{reason}; {said}" if said else reason)
