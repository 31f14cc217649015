"""Checks many answers at once without a run: what `sluice verify audit` stands on.

The same killable workers as the service's: a check that hangs is a TIMEOUT of its own answer and delays no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from services.verification.checker import Checker, Question
from services.verification.finding import Finding
from services.verification.pool import Pool
from sluice.v1 import prompt_pb2


def findings(check: str, knobs: Mapping[str, Any], asked: Iterable[tuple[str, str, str]]) -> tuple[str, list[Finding]]:
    """(the check's version, what it finds of each), for (answer, expected answer, spec as JSON).

    Raises `UserError` when there is no such check, or its knobs are refused.
    """
    with closing(Pool()) as pool:
        checker = Checker(pool, {check: knobs})
        questions = [
            Question(answer, prompt_pb2.CheckSpec(check=check, answer=expected, spec_json=spec_json))
            for answer, expected, spec_json in asked
        ]
        return checker.version(check), checker.findings(questions)
