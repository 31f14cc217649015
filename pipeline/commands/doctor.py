"""Check the machine for a run file; estimate the memory, disk and log it takes; exit code 1 when it will not do.

With --door it asks the log and these services instead of looking at this machine.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="run file (YAML)")
    parser.add_argument(
        "--door",
        action="append",
        default=[],
        metavar="SERVICE=HOST:PORT",
        help="a running service to ask for its state",
    )
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="how long the doors may take until they serve"
    )
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override a field of the run file")


def main(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from pipeline import config, doctor, recipe

    run = config.load(args.file, args.set)
    recipe.compose(run)
    findings = doctor.reach(run, args.door, args.wait) if args.door else doctor.examine(run)
    table = Table("", "what", "found")
    for one in findings:
        table.add_row({True: "ok", False: "NO", None: ""}[one.good], one.what, one.found)
    Console().print(table)
    return 0 if all(one.good is not False for one in findings) else 1
