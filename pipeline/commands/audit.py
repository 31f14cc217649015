"""Prove from a run's log that no rollout was lost and none trained twice; exit code 1 when that is not so.

DIR is a run directory, or kafka://host:port/run for a run whose directory is elsewhere.
"""

from __future__ import annotations

import argparse
import json
import time

from pipeline.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="run directory, or kafka://host:port/run")
    parser.add_argument("--prefix", default="sluice", help="topic prefix, for kafka://")
    parser.add_argument("--json", action="store_true", help="print the account as JSON")


def main(args: argparse.Namespace) -> int:
    from pipeline.audit import render

    audit = _audit(args)
    print(json.dumps(audit.to_json(), indent=2) if args.json else render(audit))
    return 0 if audit.clean else 1


def _audit(args: argparse.Namespace):
    from pipeline.audit import audit_log
    from pipeline.log import open_log
    from pipeline.relearn import audit_directory
    from pipeline.rundir import RunDir
    from pipeline.topics import Names

    if not args.dir.startswith("kafka://"):
        return audit_directory(RunDir.of(args.dir))
    address, slash, run = args.dir.removeprefix("kafka://").rpartition("/")
    if not slash or not run:
        raise UserError(f"{args.dir!r} names no run; accepted: kafka://host:port/run")
    log = open_log(f"kafka://{address}")
    try:
        return audit_log(log, Names(args.prefix, run), int(time.time() * 1000))
    finally:
        log.close()
