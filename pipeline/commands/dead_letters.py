"""List the records that were given up on, and why; --redrive writes the original bytes back to their topics."""

from __future__ import annotations

import argparse

from pipeline.rundir import RunDir


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="run directory")
    parser.add_argument("--redrive", action="store_true", help="put them back")
    parser.add_argument("--only", metavar="TEXT", help="those whose reason, topic or error contains this")
    parser.add_argument("--json", action="store_true", help="print as JSON lines")


def main(args: argparse.Namespace) -> int:
    from pipeline import dead_letters

    directory = RunDir.of(args.dir)
    log, names = directory.open_log(), directory.names()
    try:
        letters = [one for one in dead_letters.read(log, names) if dead_letters.matches(one, args.only)]
        if args.redrive:
            print(f"{dead_letters.redrive(log, names, letters)} re-driven of {len(letters)}")
        else:
            dead_letters.show(letters, as_json=args.json)
    finally:
        log.close()
    return 0
