"""Check an answer: `sluice verify math --expected 1/2 --answer 0.5`. Without CHECK, list the checks.

Exit code 0 when the answer is CORRECT, 1 when it is not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOM = "verification.check"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("check", nargs="?", help="a check's name, a package's class or a file")
    parser.add_argument("--answer", default="-", help="the answer's text; - reads it from stdin")
    parser.add_argument("--expected", default="", help="the expected answer")
    parser.add_argument("--spec", default="", help="what else the check needs: a JSON object, or @FILE with one")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="a knob of the check, as YAML")


def main(args: argparse.Namespace) -> int:
    from pipeline import parts
    from sluice.v1 import prompt_pb2, rollout_pb2

    if not args.check:
        return _list()
    check = parts.load(ROOM, args.check, **_knobs(args.set))
    answer = sys.stdin.read() if args.answer == "-" else args.answer
    spec = Path(args.spec[1:]).read_text() if args.spec.startswith("@") else args.spec
    _limit_cpu(getattr(check, "cpu_s", 0.0))
    found = check(answer, prompt_pb2.CheckSpec(check=args.check, answer=args.expected, spec_json=spec))
    print(f"{found.name}, accuracy {found.accuracy:.4g}", *filter(None, [found.reason, found.evidence]), sep="\n")
    for name, value in found.rewards:
        print(f"{name} {value:.6g}")
    return 0 if found.outcome == rollout_pb2.VERDICT_OUTCOME_CORRECT else 1


def _list() -> int:
    from pipeline import parts

    for name in sorted({*parts.names(ROOM), *parts.offered(ROOM)}):
        part = parts.find(ROOM, name)
        print(f"{name:16} {(sys.modules[part.__module__].__doc__ or '').strip().splitlines()[0]}")
    return 0


def _knobs(given: list[str]) -> dict[str, object]:
    import yaml

    from pipeline.errors import UserError

    for one in given:
        if "=" not in one:
            raise UserError(f"--set is {one!r}; accepted: KNOB=VALUE")
    return {name: yaml.safe_load(value) for name, _, value in (one.partition("=") for one in given)}


def _limit_cpu(seconds: float) -> None:
    """The kernel ends this process when the check takes more: a service's worker dies the same way."""
    import resource
    import time

    if seconds:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 10, hard))
