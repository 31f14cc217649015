"""List the methods: every recipe with its paper, what it is made of, and what is a guess.

With NAME, print formula, knobs with defaults, odd cases and the worked number of each of its parts.
"""

from __future__ import annotations

import argparse
import json


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a recipe")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.add_argument("--markdown", action="store_true", help="print the page of all methods, docs/methods.md")


def main(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from pipeline import methods, recipe

    if args.name:
        print(recipe.describe(args.name))
    elif args.json:
        print(json.dumps(recipe.methods(), indent=2))
    elif args.markdown:
        print(methods.markdown(), end="")
    else:
        table = Table(*methods.TABLE, show_lines=True)
        for name in recipe.shipped():
            table.add_row(*methods.row(recipe.load_recipe(name)))
        Console(soft_wrap=False).print(table)
    return 0
