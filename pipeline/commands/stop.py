"""Drain a run: nothing new is asked for, what is in flight gets its outcome, the learner writes a checkpoint."""

from __future__ import annotations

import argparse
import time

from pipeline.rundir import RunDir


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="run directory")
    parser.add_argument("--timeout", type=float, default=600.0, help="how long to wait for the drain, seconds")


def main(args: argparse.Namespace) -> int:
    from pipeline import config
    from pipeline.supervisor import write
    from pipeline.view import Watcher
    from sluice.v1 import control_pb2

    directory = RunDir.of(args.dir)
    log, names = directory.open_log(), directory.names()
    watcher = Watcher(log, names)
    control = control_pb2.Control(
        phase=control_pb2.PHASE_DRAINING,
        reason="sluice stop",
        config_json=config.canonical(directory.run()),
        config_digest=config.identity_digest(directory.run()),
        written_ms=int(time.time() * 1000),
        by="cli",
    )
    if watcher.look().control.phase != control_pb2.PHASE_FINISHED:
        write(log, names, "stop", "control", "run", control)
    deadline = time.monotonic() + args.timeout
    while watcher.look().control.phase != control_pb2.PHASE_FINISHED:
        if time.monotonic() > deadline:
            print(f"not drained after {args.timeout:.0f} s; it goes on draining")
            return 1
    print(f"drained at step {watcher.view.step}: {watcher.view.control.reason}")
    return 0
