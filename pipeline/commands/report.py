"""Write a run's summary.json and report.html again from its log."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pipeline.rundir import RunDir, write_atomically


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="run directory")


def main(args: argparse.Namespace) -> int:
    from pipeline.summary import summarise

    directory = RunDir.of(args.dir)
    summary = summarise(directory)
    write_atomically(directory.file("summary.json"), json.dumps(summary, indent=2))
    print(write_report(directory, summary))
    return 0


def write_report(directory: RunDir, summary: dict[str, Any]) -> Path:
    """The HTML report of a run; returns its path."""
    from pipeline.report import collect, render

    file = directory.file("report.html")
    log = directory.open_log()
    try:
        write_atomically(file, render(collect(log, directory.names(), directory.run(), summary)))
    finally:
        log.close()
    return file
