"""List the methods: every recipe with its paper, what it is made of, and what is a guess.

With NAME, print formula, knobs with defaults, odd cases and the worked number of each of its parts.
"""

from __future__ import annotations

import argparse
import json
import textwrap


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
    for one in found:
        print(f"{one['name']}: {one['title']} ({one['year']})")
        print(f"    {one['paper']}; confidence: {one['confidence']}; off-policy: {one['off_policy']}")
        print(textwrap.fill(f"parts: {', '.join(one['parts'])}", 116, initial_indent="    ", subsequent_indent="    "))
    return 0
