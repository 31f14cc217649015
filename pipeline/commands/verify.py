"""Check an answer, or find out how often a check errs.

    sluice verify                                           list the checks
    sluice verify math --expected 1/2 --answer 0.5          check one answer
    sluice verify audit answers.jsonl --check math          false-positive and false-negative rates, from labels

Exit code 0 when the answer is CORRECT (an audit: when it was made), 1 when it is not. Rows of an audit hold `answer`,
`label` (true, false, 1, 0, correct or wrong) and, where the check needs them, `expected` and `spec`; JSON lines or
Parquet. What a check did not decide (INFRA_ERROR, TIMEOUT) is counted apart.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

ROOM = "verification.check"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", metavar="CHECK", help="a check's name, a package's class, a file; or audit")
    parser.add_argument("data", nargs="?", metavar="DATA", help="audit: labelled answers, .jsonl or .parquet")
    parser.add_argument("--answer", default="-", help="the answer's text; - reads it from stdin")
    parser.add_argument("--expected", default="", help="the expected answer")
    parser.add_argument("--spec", default="", help="what else the check needs: a JSON object, or @FILE with one")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="a knob of the check, as YAML")
    parser.add_argument("--check", default="", help="audit: the check that is audited")
    parser.add_argument(
        "--column", action="append", default=[], metavar="WHAT=NAME", help="audit: a column of another name"
    )
    parser.add_argument("--json", action="store_true", help="audit: print as JSON")


def main(args: argparse.Namespace) -> int:
    from pipeline import parts
    from pipeline.errors import UserError
    from sluice.v1 import prompt_pb2, rollout_pb2

    if not args.what:
        return _list()
    if args.what == "audit":
        return _audit(args)
    if args.data:
        raise UserError(f"{args.data!r} stands behind check {args.what!r}; accepted: --answer TEXT, or audit DATA")
    check = parts.load(ROOM, args.what, **_knobs(args.set))
    spec = _spec(args.spec)
    answer = sys.stdin.read() if args.answer == "-" else args.answer
    _limit_cpu(getattr(check, "cpu_s", 0.0))
    found = check(answer, prompt_pb2.CheckSpec(check=args.what, answer=args.expected, spec_json=spec))
    print(f"{found.name}, accuracy {found.accuracy:.4g}", *filter(None, [found.reason, found.evidence]), sep="\n")
    for name, value in found.rewards:
        print(f"{name} {value:.6g}")
    return 0 if found.outcome == rollout_pb2.VERDICT_OUTCOME_CORRECT else 1


def _audit(args: argparse.Namespace) -> int:
    from pipeline import parts, verifier_audit
    from pipeline.errors import UserError
    from pipeline.processes import QUIET

    if not args.data or not args.check:
        raise UserError("audit needs labelled answers and a check; accepted: audit DATA --check NAME")
    knobs = _knobs(args.set)
    parts.load(ROOM, args.check, **knobs)
    rows = verifier_audit.read(args.data, verifier_audit.columns(args.column))
    os.environ.update(QUIET)
    offline = importlib.import_module("services.verification.offline")
    version, found = offline.findings(args.check, knobs, [(one.answer, one.expected, one.spec_json) for one in rows])
    audit = verifier_audit.Audit(args.check, version)
    for one, finding in zip(rows, found, strict=True):
        if finding.reason == "bad_spec":
            raise UserError(f"{one.where}: {finding.evidence}")
        audit.add(one, finding.name, finding.evidence)
    if args.json:
        print(json.dumps(audit.to_json(), indent=2))
    else:
        verifier_audit.show(audit)
    return 0


def _list() -> int:
    from pipeline import parts

    for name in sorted({*parts.names(ROOM), *parts.offered(ROOM)}):
        part = parts.find(ROOM, name)
        print(f"{name:16} {(sys.modules[part.__module__].__doc__ or '').strip().splitlines()[0]}")
    return 0


def _knobs(given: list[str]) -> dict[str, object]:
    from pipeline import overrides

    return dict(overrides.read(one, overrides.KNOB) for one in given)


def _spec(given: str) -> str:
    """What `--spec` says, or the text of the file that it names."""
    from pipeline.errors import UserError

    if not given.startswith("@"):
        return given
    file = Path(given[1:])
    if not file.is_file():
        raise UserError(f"--spec file {given[1:]!r} does not exist; accepted: a JSON object, or @FILE")
    return file.read_text()


def _limit_cpu(seconds: float) -> None:
    """The kernel ends this process when the check takes more: a service's worker dies the same way."""
    import resource
    import time

    if seconds:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 10, hard))
