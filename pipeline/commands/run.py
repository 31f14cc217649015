"""Train: start the services on this machine, watch them, evaluate before and after, audit, report.

A second `sluice run` on the same directory resumes. Ctrl-C drains; twice, it stops at once.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import Run


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="run file (YAML)")
    parser.add_argument("--dir", help="run directory; default: runs/<name of the run>")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override a field of the run file")
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view")


def main(args: argparse.Namespace) -> int:
    from pipeline import config, live, recipe, supervisor
    from pipeline.commands.report import write_report
    from pipeline.errors import UserError
    from pipeline.rundir import RunDir, write_atomically
    from pipeline.summary import summarise

    run = config.load(args.file, args.set)
    recipe.compose(run)
    path = args.dir or os.path.join("runs", run.run)
    fresh = not os.path.exists(os.path.join(path, "run.json"))
    if fresh:
        _look(run)
    directory = RunDir.make(path, run)
    with supervisor.only_one(directory), live.display(run, directory, plain=args.plain) as display:
        one = supervisor.Supervisor(run, directory, display.say, display.show)
        with supervisor.interrupts(one):
            try:
                one.start()
                reached = one.supervise()
                if reached:
                    one.finish()
            except UserError:
                if fresh and not one.registered:
                    directory.forget()
                raise
            finally:
                one.close()
        display.say("auditing")
        summary = summarise(directory)
        write_atomically(directory.file("summary.json"), json.dumps(summary, indent=2))
        report = write_report(directory, summary)
    live.conclude(run, directory, summary, report, reached)
    audit = summary["audit"]
    return 0 if not (audit["lost"] or audit["trained_twice"]) else 1


def _look(run: Run) -> None:
    """Raise for data, model or log that are not there, before a run directory has them as its identity."""
    from pipeline.base_model import refuse_missing
    from pipeline.data.load import load_all
    from pipeline.log import open_log

    load_all(run.data.sources)
    refuse_missing(run.model.source)
    if run.log != "embedded":
        log = open_log(run.log)
        log.topics(f"{run.prefix}.{run.run}.")
        log.close()
