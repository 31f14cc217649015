"""Make the run directory of one service from a run file: what a pod does before `sluice serve`.

Waits until `sluice start` has told the run to begin on its log; an embedded log is begun here, for a service that other
trainers use alone. With --model it also gets the model: as it is trained
(`warm`, learning), or as it is built or downloaded (`cold`, generation: its weights come over the log).
"""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="run file (YAML)")
    parser.add_argument("--dir", required=True, help="run directory")
    parser.add_argument("--model", choices=("none", "warm", "cold"), default="none", help="what to get of the model")
    parser.add_argument("--timeout", type=float, default=600.0, help="how long to wait for the run's start, seconds")


def main(args: argparse.Namespace) -> int:
    from pipeline import config, recipe, remote
    from pipeline.base_model import get_model
    from pipeline.data.register import prompts_of
    from pipeline.rundir import RunDir

    run = config.load(args.file)
    recipe.compose(run)
    if run.log == "embedded":
        prompts_of(run)  # what is wrong with them is said before the directory has them as its identity
    directory = RunDir.make(args.dir, run)
    if run.log == "embedded":
        remote.start_here(directory, print)
    else:
        remote.wait_for_start(directory, args.timeout, print)
    if args.model != "none":
        get_model(directory, cold=args.model == "cold")
    print(f"{args.dir} is ready")
    return 0
