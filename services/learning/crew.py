"""The other ranks of the learner: processes on this machine that rank 0 starts, watches and ends (or ray_ranks.py).

    rank 0: the service    opens the store -> starts the others -> joins -> tells them what to do, step after step
    the others             python -m services.learning.crew DIR RANK SIZE PORT: join -> follow until told to stop

They hold nothing that rank 0 cannot give them again. One that ends in mid-run takes the learner with it, since no step
can be finished by some of its ranks: whoever started the learner starts it again, and it goes on from its checkpoint.
"""

from __future__ import annotations

import datetime
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
import torch.distributed as dist

from pipeline.errors import UserError
from pipeline.processes import end_with
from services.learning.ranks import World

logger = logging.getLogger(__name__)

HERE = "127.0.0.1"
PATIENCE_S = 1800.0
"""A rank that hears nothing from another for so long ends. Rank 0 speaks every minute, also where it waits."""
END_S = 10.0
LOST_S = 20.0
"""A rank's connection ends before it is known that the rank has: on a Ray cluster by some seconds."""
EXIT_WITHOUT_A_RANK = 4
EXIT_REFUSED = 2
"""What a rank on another machine ends with, and the learner after it, for an error of the user's."""


def open_store(rank: int, size: int, port: int = 0, host: str = HERE) -> dist.TCPStore:
    """Where the ranks meet: rank 0 opens it, at a free port when none is named, and the others connect to it."""
    patience = datetime.timedelta(seconds=PATIENCE_S)
    return dist.TCPStore(host, port, size, is_master=rank == 0, timeout=patience, wait_for_workers=False)


def join(rank: int, size: int, store: dist.Store, interface: str = "") -> World:
    """Be one rank of `size`. Waits until all are there.

    Bytes and commands go over gloo on the CPU, so that a rank that waits for the next step keeps no GPU busy.
    `interface`: the network that the ranks share; empty where all are on this machine, whatever its name resolves to.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface or ("lo0" if sys.platform == "darwin" else "lo"))
    if interface:
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    patience = datetime.timedelta(seconds=PATIENCE_S)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=patience)
    return World(rank, size)


class Rank(Protocol):
    """A process of a rank above 0, here or on another machine; of what `subprocess.Popen` offers as much as is used."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises `subprocess.TimeoutExpired`."""

    def kill(self) -> None:
        """End it."""


@dataclass
class Crew:
    """The processes of the ranks above 0."""

    world: World
    processes: Sequence[Rank]
    dismissed: threading.Event = field(default_factory=threading.Event)
    told: bool = False
    """Have they heard that it is over, so that they end by themselves."""

    def watch(self) -> None:
        """End this process as soon as one of them ends before it may. Threads of their own."""
        for rank, process in enumerate(self.processes, start=1):
            threading.Thread(target=self._watch, args=(rank, process), daemon=True).start()

    def dismiss(self, stop: Callable[[], None]) -> None:
        """Rank 0 needs them no more: `stop` tells them so."""
        self.forgo()
        stop()
        self.told = True

    def forgo(self) -> None:
        """Rank 0 ends and says why itself: from here on it is nobody's fault when one of them ends."""
        self.dismissed.set()

    def await_loss(self) -> None:
        """After an error that may be a lost rank's: let a watcher end this process with the reason, if it is that."""
        if not self.dismissed.is_set():
            time.sleep(LOST_S)

    def end(self) -> None:
        """Wait for those that were dismissed; kill them otherwise, and when they do not end. Never raises."""
        self.forgo()
        for rank, process in enumerate(self.processes, start=1):
            try:
                if not _ended(process, END_S if self.told else 0.0):
                    process.kill()
                    _ended(process, END_S)
            except (OSError, RuntimeError) as error:
                logger.warning("rank %d could not be ended: %s", rank, error)

    def _watch(self, rank: int, process: Rank) -> None:
        code = process.wait()
        if code == EXIT_REFUSED and not self.dismissed.is_set():
            os._exit(EXIT_REFUSED)  # it has said why, and would say so at every start
        if not self.dismissed.is_set():
            logger.error(
                "rank %d of the learner ended (exit code %d); the learner begins again at its checkpoint", rank, code
            )
            os._exit(EXIT_WITHOUT_A_RANK)


def _ended(process: Rank, within_s: float) -> bool:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def muster(folder: Path, size: int, device: torch.device) -> Crew:
    """Start the other ranks of a run's learner and join them; `folder`: the run's, `device`: what they train on.

    Raises `UserError` for more ranks than GPUs.
    """
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and size > gpus:
        raise UserError(f"learning.ranks is {size} and this machine has {gpus} GPUs; accepted: 1 to {gpus}")
    store = open_store(0, size)
    command = [sys.executable, "-m", "services.learning.crew", str(folder)]
    processes = [
        subprocess.Popen([*command, str(rank), str(size), str(store.port)], stdin=subprocess.DEVNULL)
        for rank in range(1, size)
    ]
    crew = Crew(World(0, size), processes)
    crew.watch()
    join(0, size, store)
    return crew


def main(folder: str, rank: str, size: str, port: str) -> None:
    """One of the ranks above 0, until rank 0 says stop or is gone."""
    from pipeline import recipe
    from pipeline.rundir import RunDir
    from services.learning.service import trainer_of

    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, signal.SIG_IGN)  # rank 0 says when it is over
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    if int(rank) < torch.cuda.device_count():
        torch.cuda.set_device(int(rank))  # rank 0 has the first one
    directory = RunDir.of(folder)
    run = directory.run()
    trainer = trainer_of(run, recipe.compose(run), directory.folder("base"))
    trainer.world = join(int(rank), int(size), open_store(int(rank), int(size), int(port)))
    try:
        trainer.follow()
    except RuntimeError:  # what torch raises where a connection ends
        time.sleep(2.0)  # where rank 0 is gone, the thread above ends this process meanwhile, without a word
        raise


if __name__ == "__main__":
    main(*sys.argv[1:])
