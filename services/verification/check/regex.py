"""Right when a pattern matches the answer.

    CORRECT  <=>  re.fullmatch(pattern, answer)        (mode "search": anywhere in it)

Source: the common rule-based reward of instruction following (IFEval). The pattern is `spec.answer`.
Odd cases: some patterns take exponential time on some texts ("(a+)+$" on "aaaa...b"). Python's `re` cannot be
interrupted from inside, so this check runs in a worker process, which the kernel ends at `cpu_s`: a TIMEOUT, at nobody
else's cost. An answer longer than `max_chars` is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.verification import extract
from services.verification.finding import Finding, correct, unparsable, wrong
from sluice.v1 import prompt_pb2


@dataclass(frozen=True)
class Regex:
    r"""
    >>> spec = prompt_pb2.CheckSpec(check="regex", answer=r"\d{4}-\d{2}")
    >>> Regex()("<answer>2024-05</answer>", spec).name, Regex()("in 2024-05", spec).name
    ('CORRECT', 'WRONG')
    """

    mode: str = knob("fullmatch", "the whole answer, or anywhere in it", choices=("fullmatch", "search"))
    ignore_case: bool = knob(False, "upper and lower case are one")
    tag: str = knob("answer", "the answer is what follows the last <tag>; without one, or empty: the whole text")
    max_chars: int = knob(20_000, "a longer answer is not read", unit="characters", ge=1)
    cpu_s: float = knob(1.0, "CPU time of one answer", unit="s", gt=0, le=60)

    version: ClassVar[str] = "1"

    __post_init__ = check

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT, WRONG, or UNPARSABLE when the answer is too long. Raises `UserError` for a bad pattern."""
        pattern = _compiled(spec.answer, self.ignore_case)
        said = extract.answer(answer_text, self.tag)
        if len(said) > self.max_chars:
            return unparsable("too_long", f"{len(said)} characters; accepted: {self.max_chars}")
        found = pattern.fullmatch(said) if self.mode == "fullmatch" else pattern.search(said)
        evidence = f"said {said[:500]!r}, expected a match of {spec.answer[:500]!r}"
        return correct(evidence) if found else wrong(evidence)


@lru_cache(maxsize=512)
def _compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    if not pattern:
        raise UserError("regex: the pattern (the expected answer) is ''; accepted: a regular expression")
    try:
        return re.compile(pattern, re.IGNORECASE if ignore_case else 0)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"regex: the pattern is {pattern[:200]!r} ({error}); accepted: a regular expression") from error
