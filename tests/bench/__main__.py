"""The benchmarks: `make bench`, or one of them: `python -m tests.bench NAME`.

Each prints a table and writes it to `docs/bench/NAME.md`. They take from two minutes to 90 (`recipes`), on a machine
with nothing else to do.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "bench"
NAMES = (
    "stage",
    "overhead",
    "verification",
    "learns",
    "asynchronous",
    "difficulty",
    "samplers",
    "mixed",
    "advantages",
    "observing",
    "learner",
    "recipes",
    "weights",
    "engine",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[], help=f"which: {', '.join(NAMES)}; all when none is named")
    args = parser.parse_args()
    for name in args.names or NAMES:
        if name not in NAMES:
            print(f"benchmark is {name!r}; accepted: {', '.join(NAMES)}", file=sys.stderr)
            return 2
        text = importlib.import_module(f"tests.bench.{name}").main()
        print(text)
        DOCS.mkdir(parents=True, exist_ok=True)
        (DOCS / f"{name}.md").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
