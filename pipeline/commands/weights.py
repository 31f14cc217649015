"""List a run's policy versions and who has applied them; export one as a Hugging Face folder; verify the chain.

sluice weights list RUN                     versions that the log still holds, their sizes, and each worker's version
sluice weights export RUN VERSION DIR       what AutoModelForCausalLM loads; VERSION is a number, or newest
sluice weights verify RUN                   read every chunk and compare every digest; exit code 1 when one is wrong
"""

from __future__ import annotations

import argparse

from pipeline.errors import UserError


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", help="list, export or verify; or the run directory alone, which lists")
    parser.add_argument("rest", nargs="*", help="run directory; for export also VERSION and DIR")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def main(args: argparse.Namespace) -> int:
    from pipeline import versions
    from pipeline.rundir import RunDir

    what, rest = (
        (args.what, args.rest) if args.what in ("list", "export", "verify") else ("list", [args.what, *args.rest])
    )
    wanted = 3 if what == "export" else 1
    if len(rest) != wanted:
        names = "RUN VERSION DIR" if what == "export" else "RUN"
        raise UserError(f"weights {what} has {len(rest)} arguments; accepted: {names}")
    directory = RunDir.of(rest[0])
    log = directory.open_log()
    try:
        if what == "export":
            version = versions.export(directory, log, rest[1], rest[2])
            print(f"version {version} written to {rest[2]}")
            return 0
        if what == "verify":
            return versions.verify(directory, log, args.json)
        versions.show(directory, log, args.json)
        return 0
    finally:
        log.close()
