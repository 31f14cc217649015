"""Write a run and its whole stream to a folder of Parquet files that needs no broker: audit it, or relearn from it."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="run directory")
    parser.add_argument("folder", help="the archive's folder; a new one")


def main(args: argparse.Namespace) -> int:
    from pipeline.archive import archive
    from pipeline.rundir import RunDir

    found = archive(RunDir.of(args.dir), args.folder)
    for topic, count in found.items():
        print(f"{count:>10,} {topic}")
    print(f"archive: {args.folder}")
    return 0
