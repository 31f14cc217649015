"""Begin a run whose services live elsewhere: create its topics, register its prompts, tell it to run.

What exists stays: a second `start` of the same run file changes nothing but what a restart may change. `sluice run`
does all this by itself on one machine.
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="run file (YAML)")
    parser.add_argument("--topics", choices=("create", "wait"), default="create", help="wait: somebody else makes them")
    parser.add_argument(
        "--replicas", type=int, default=0, metavar="N", help="brokers that keep a copy of a topic; 0: Kafka's default"
    )
    parser.add_argument("--timeout", type=float, default=300.0, help="how long to wait for log and topics, seconds")


def main(args: argparse.Namespace) -> int:
    from pipeline import config, recipe, remote

    run = config.load(args.file)
    recipe.compose(run)
    remote.start(run, make_topics=args.topics == "create", timeout_s=args.timeout, say=print, replicas=args.replicas)
    return 0
