"""The `sluice` command.

Exit codes: 0 done, 1 the answer is no (an audit that is not clean, a doctor that found a wall missing), 2 a value that
the user can correct, said in one sentence, 143 it was told to end by SIGTERM: `serve` and `run` drain instead.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

from pipeline.errors import SluiceError, UserError

FOLDER = Path(__file__).parent / "commands"
ENDED = 128 + signal.SIGTERM
"""As a shell says it."""


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    # Without a handler the first process of a container is not ended by it: a pod would wait out its whole grace.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))
    parser = _parser()
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore", SyntaxWarning)  # of libraries' own sources, when they are first compiled
    logging.basicConfig(level=os.environ.get("SLUICE_LOG_LEVEL", "WARNING"), format="%(asctime)s %(name)s: %(message)s")
    try:
        return int(importlib.import_module(f"pipeline.commands.{args.module}").main(args))
    except UserError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return 2
    except SluiceError as error:
        print(f"sluice: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def commands() -> list[str]:
    """Module names of all commands, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sluice", description="Reinforcement learning from verifiable rewards as a stream of events."
    )
    chosen = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in commands():
        name = module.replace("_", "-")
        help_text = ast.get_docstring(ast.parse((FOLDER / f"{module}.py").read_text())) or ""
        one = chosen.add_parser(
            name,
            help=help_text.splitlines()[0],
            description=help_text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        importlib.import_module(f"pipeline.commands.{module}").arguments(one)
        one.set_defaults(module=module)
    return parser


if __name__ == "__main__":
    sys.exit(main())
