"""List the methods: every recipe with its paper, what it is made of, and what is a guess.

With NAME, print formula, knobs with defaults, odd cases and the worked number of each of its parts.
"""

from __future__ import annotations

import argparse
import json


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a recipe")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def main(args: argparse.Namespace) -> int:
    from pipeline import recipe

    if args.name:
        print(recipe.describe(args.name))
        return 0
    found = recipe.methods()
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "title", "paper", "confidence", "off-policy", "parts")
    for one in found:
        parts = one["parts"]
        table.add_row(
            one["name"],
            one["title"],
            one["paper"],
            one["confidence"],
            str(one["off_policy"]),
            ", ".join(map(str, parts)),
        )
    Console().print(table)
    return 0
