"""Train again from the recorded stream of a finished run, under another recipe; nothing is sampled or checked anew.

RUN is a run directory. Behaviour log-probs and versions are the recorded ones; `max_lag` bounds nothing here. The same
stream, recipe and seed give the same weights. Exit code 1 when the account is not clean or no step was made.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run directory of a finished run")
    parser.add_argument("--recipe", required=True, help="a shipped recipe's name, or a YAML file")
    parser.add_argument("--dir", required=True, help="the new run directory")
    parser.add_argument("--steps", type=int, help="optimiser steps at most; default: all that the stream gives")
    parser.add_argument("--seed", type=int, help="shuffles groups within blocks of four batches; default: as recorded")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override a field of the run file")


def main(args: argparse.Namespace) -> int:
    from pipeline import relearn
    from pipeline.audit import render
    from pipeline.processes import QUIET
    from pipeline.rundir import write_atomically
    from pipeline.summary import summarise

    os.environ.update(QUIET)
    directory = relearn.prepare(args.run, args.dir, args.recipe, args.steps, args.seed, args.set)
    found = importlib.import_module("services.learning.relearn").train(directory)
    origin = relearn.origin_of(directory)
    account = relearn.audit(directory, origin)
    summary = relearn.summary(summarise(directory), origin, found.metrics, found.seconds)
    write_atomically(directory.file("summary.json"), json.dumps(summary, indent=2))
    print(render(account))
    print(f"{found.steps} steps in {found.seconds:.1f} s; the model is in {directory.folder('model')}")
    return 0 if account.clean and found.steps else 1
