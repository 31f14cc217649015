"""The other ranks of the learner as tasks of a Ray cluster, for a learner of several machines.

    rank 0: the service    opens the store -> asks Ray for the others -> joins -> hands out the base model
    the others             follow() in a worker of Ray: join -> take the base model -> follow until told to stop

A worker of Ray needs this package and nothing else: no log, no run directory, no secret, no hub. Only addresses and the
run file travel through Ray; what is trained on goes over torch.distributed. A rank that ends, or a node that is taken
away, ends the learner as in crew.py; Ray ends the tasks of a learner that is gone.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import torch
import torch.distributed as dist

from pipeline import config, processes, recipe
from pipeline.errors import UserError
from services.learning.crew import EXIT_REFUSED, Crew, join, open_store
from services.learning.ranks import World
from services.learning.spread import spread_folder

logger = logging.getLogger(__name__)

ANSWER_S, AGAIN_S = 10.0, 5.0
SAY_EVERY_S = 60.0
Leaving = Callable[[], bool]
"""Has this process been told to end."""


@dataclass(frozen=True)
class RayRank:
    """One rank on the cluster, as `Crew` watches it."""

    rank: int
    task: Any

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises `TimeoutExpired` where it has not by then."""
        import ray

        try:
            ray.get(self.task, timeout=timeout)
        except ray.exceptions.GetTimeoutError as error:
            raise subprocess.TimeoutExpired(f"rank {self.rank}", timeout or 0.0) from error
        except ray.exceptions.TaskCancelledError:
            return -signal.SIGKILL
        except (ray.exceptions.RayError, ConnectionError, RuntimeError) as error:
            logger.error("rank %d on the Ray cluster: %s", self.rank, _in_a_line(error))
            return EXIT_REFUSED if isinstance(error, UserError) else 1
        return 0

    def kill(self) -> None:
        """End its process."""
        import ray

        ray.cancel(self.task, force=True)


def muster(run: config.Run, method: recipe.Recipe, base: Path, device: torch.device, leaving: Leaving) -> Crew:
    """Start the ranks above 0 on the cluster at `learning.ray`, join them, and hand out the model in `base`.

    Each asks for `learning.threads` CPUs, and for a GPU where rank 0 trains on one (`device`), and trains on the same
    kind of device. Raises `UserError` when the cluster does not answer, has no Sluice, or has no place for a rank
    within `processes.RAY_S`; `SystemExit` when this process is to end meanwhile.
    """
    size, place = run.learning.ranks, urlsplit(run.learning.ray)
    wait = Wait(leaving)
    ray = connected(run.learning.ray, wait)
    here = own_address(place.hostname, place.port)
    store = open_store(0, size, host=here)
    told = (_on(run, device), json.dumps(method.model_dump(mode="json")), size, here, store.port)
    cpus, gpus = run.learning.threads, int(device.type == "cuda")
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, runtime_env={"env_vars": processes.QUIET})(follow)
    ranks = [RayRank(rank, _begun(task, rank, *told)) for rank in range(1, size)]
    crew = Crew(World(0, size), ranks)
    with ExitStack() as otherwise:
        otherwise.callback(crew.end)
        crew.watch()
        _await(store, ranks, wait, f"{run.learning.ray} has no place for", f"{cpus} CPUs and {gpus} GPUs free for each")
        join(0, size, store, interface_of(here))
        spread_folder(crew.world, base)
        otherwise.pop_all()
    return crew


def follow(rank: int, run_json: str, method_json: str, size: int, host: str, port: int) -> None:
    """One rank above 0, until rank 0 says stop or is gone; runs in a worker of Ray. `host`, `port`: of the store."""
    from services.learning.service import trainer_of

    run = config.parse(json.loads(run_json), where="the run file of rank 0")
    method = recipe.Recipe.model_validate(json.loads(method_json))
    _reach(rank, host, port)
    store = open_store(rank, size, port, host)
    store.set(_key(rank), "here")
    world = join(rank, size, store, interface_of(own_address(host, port)))
    with tempfile.TemporaryDirectory(prefix="sluice-rank-") as folder:
        spread_folder(world, Path(folder))
        trainer = trainer_of(run, method, Path(folder))
    trainer.world = world
    trainer.follow()


def own_address(host: str | None, port: int | None) -> str:
    """This machine's address as that host sees it. Nothing is sent."""
    family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.connect(where)
        return str(sock.getsockname()[0])


def interface_of(address: str) -> str:
    """The network interface that has this address; gloo and NCCL take one by name."""
    return next(name for name, has in psutil.net_if_addrs().items() if address in {one.address for one in has})


@dataclass
class Wait:
    """A wait of `processes.RAY_S` at most, which ends when the process is to end."""

    leaving: Leaving
    begun: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Has it lasted too long."""
        return time.monotonic() - self.begun > processes.RAY_S

    def sleep(self, seconds: float) -> None:
        """Sleep. Raises `SystemExit`, as SIGTERM by itself would."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self.leaving():
                raise SystemExit(128 + signal.SIGTERM)
            time.sleep(min(left, 0.2))


def connected(address: str, wait: Wait) -> Any:
    """Ray, connected to the cluster. One that does not answer yet is asked again. Raises `UserError`."""
    while True:
        try:
            return _ask(address)
        except (ConnectionError, OSError, TimeoutError, RuntimeError) as error:
            if "version mismatch" in str(error).lower():
                told = " ".join(str(error).split())
                raise UserError(f"learning.ray is {address!r}, a cluster of another version; {told}") from error
            if wait.over:
                said = f"learning.ray is {address!r} and no Ray cluster answers there ({_in_a_line(error)})"
                wanted = "ray://HOST:PORT of a cluster that runs, its token in RAY_AUTH_TOKEN where it asks for one"
                raise UserError(f"{said}; accepted: {wanted}") from error
            logger.warning("the Ray cluster %s does not answer (%s); asking again", address, _in_a_line(error))
            wait.sleep(AGAIN_S)


def _ask(address: str) -> Any:
    drains = signal.getsignal(signal.SIGTERM)
    try:
        import ray

        place = urlsplit(address)
        socket.create_connection((place.hostname, place.port), ANSWER_S).close()  # Ray itself tries for half a minute
        ray.init(address, logging_level=logging.ERROR)
        return ray
    except ImportError as error:
        said = f"learning.ray is {address!r} and Ray is not installed"
        raise UserError(f"{said}; accepted: pip install 'sluice[ray]', or learning.ray left out") from error
    finally:
        signal.signal(signal.SIGTERM, drains)  # Ray has put its own there, which ends the process at once


def _begun(task: Any, rank: int, *told: object) -> Any:
    try:
        return task.remote(rank, *told)
    except ImportError as error:  # the head reads the task's name, as every worker will
        said = f"the Ray cluster cannot import what a rank needs ({_in_a_line(error)})"
        raise UserError(f"{said}; accepted: sluice[ray,torch] installed on every node, of this version") from error


def _reach(rank: int, host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), ANSWER_S).close()
    except OSError as error:
        said = f"rank {rank} on {socket.gethostname()} cannot reach rank 0 at {host}:{port} ({error})"
        wanted = "ranks that reach each other, and in learning.ray the address that all of them know"
        raise UserError(f"{said}; accepted: {wanted}") from error


def _on(run: config.Run, device: torch.device) -> str:
    """The run file with the kind of device that rank 0 has found: Ray does not hide GPUs from who asked for none."""
    model = run.model.model_copy(update={"device": device.type})
    return config.canonical(run.model_copy(update={"model": model}))


def _await(store: dist.TCPStore, ranks: Sequence[RayRank], wait: Wait, lacks: str, wanted: str) -> None:
    said = time.monotonic()
    while missing := [one.rank for one in ranks if not store.check([_key(one.rank)])]:
        told = f"the Ray cluster {lacks} {len(missing)} of {len(ranks)} ranks"
        if wait.over:
            raise UserError(f"{told} after {processes.RAY_S:.0f} s; accepted: {wanted}")
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            logger.warning("%s; waiting", told)
        wait.sleep(0.2)


def _key(rank: int) -> str:
    return f"rank-{rank}"


def _in_a_line(error: BaseException) -> str:
    """What an error says, in one line. A traceback from another machine, which Ray has as one text, ends with it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if "Traceback" in str(error) or "ray::" in lines[0] else 0].strip()
