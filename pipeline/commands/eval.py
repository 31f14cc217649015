"""Evaluate a run's newest policy: pass@k and mean@k on its held-out set or on another source, outside the audit."""

from __future__ import annotations

import argparse
import json


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", help="run directory")
    parser.add_argument("--source", action="append", metavar="JSON", help='prompt source, e.g. {"kind": "jsonl", ...}')
    parser.add_argument("--name", default="eval", help="name of the evaluation in the record")
    parser.add_argument("--prompts", type=int, default=256, help="problems at most")
    parser.add_argument("--samples", type=int, default=4, help="samples per problem")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 is greedy and takes one sample")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def main(args: argparse.Namespace) -> int:
    from google.protobuf import json_format
    from rich.console import Console
    from rich.table import Table

    from pipeline import evaluation_run
    from pipeline.rundir import RunDir

    sources = [_source(one) for one in args.source or []]
    found = evaluation_run.evaluate_run(
        RunDir.of(args.dir), args.name, sources, args.prompts, args.samples, args.temperature
    )
    if args.json:
        print(json.dumps(json_format.MessageToDict(found, preserving_proto_field_name=True), indent=2))
        return 0
    table = Table("metric", "value", title=f"{found.name}: version {found.version}, {found.prompts} problems")
    for name, value in sorted(found.metrics.items()):
        table.add_row(name, f"{value:.4f}")
    Console().print(table)
    return 0


def _source(given: str) -> dict[str, object]:
    from pipeline.errors import UserError

    try:
        found = json.loads(given)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f'--source is {given!r}; accepted: a JSON object such as {{"kind": "jsonl", ...}}')
    return found
