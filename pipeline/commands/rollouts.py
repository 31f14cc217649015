"""Show what was said: text, verdict, lag, advantage; export it as JSONL or Parquet."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="run directory")
    parser.add_argument("--limit", type=int, default=20, help="how many to show; 0 shows all")
    parser.add_argument("--outcome", help="only verdicts of this outcome, for example WRONG")
    parser.add_argument("--prompt", help="only this prompt id")
    parser.add_argument("--step", type=int, help="only what this step trained on")
    parser.add_argument("--export", metavar="FILE", help="write all that match to FILE (.jsonl or .parquet)")


def main(args: argparse.Namespace) -> int:
    from itertools import islice

    from pipeline import rollouts
    from pipeline.errors import UserError
    from pipeline.rundir import RunDir

    if args.limit < 0:
        raise UserError(f"--limit is {args.limit}; accepted: 0 or more")
    directory = RunDir.of(args.dir)
    log, names = directory.open_log(), directory.names()
    try:
        found = rollouts.rows(log, names, outcome=args.outcome, prompt_id=args.prompt, step=args.step)
        if args.export:
            print(f"{rollouts.export(found, args.export)} rollouts written to {args.export}")
        else:
            rollouts.show(list(islice(found, args.limit or None)))
    finally:
        log.close()
    return 0
