r"""Mathematical equality of LaTeX or plain answers, by math-verify. Runs in a worker process that can be killed.

math-verify reads plain expressions with `eval`; so only its LaTeX reader is used here (an ANTLR grammar), and plain
notation is written as LaTeX first. Its own time limits use `signal.alarm` and are off: the worker's CPU limit is ours.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from pipeline.errors import UserError
from services.verification import extract
from services.verification.check import CPU_S
from services.verification.finding import Finding, correct, unparsable, wrong
from sluice.v1 import prompt_pb2

MAX_ANSWER_CHARS = 2_000
MAX_NESTING = 60
_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_PLAIN = (
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\*"), r" \\cdot "),
    (re.compile(r"\bsqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"\^\s*\(([^()]*)\)"), r"^{\1}"),
    (re.compile(r"\^\s*(-?\d+)"), r"^{\1}"),
    (re.compile(r"\b(pi|sin|cos|tan|log|ln|exp)\b"), r"\\\1 "),
    (re.compile(r"\b(?:infinity|inf|oo)\b"), r"\\infty "),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile("π"), r"\\pi "),
    (re.compile("√\\s*(\\w+)"), r"\\sqrt{\1}"),
    (re.compile("∞"), r"\\infty "),
    (re.compile(r"(?<=\d)\s*%"), r"\\%"),
)


@dataclass(frozen=True)
class Math:
    r"""Right when the answer equals `spec.answer` as mathematics.

    The answer is the content of the last `\boxed{}` with balanced braces; else of the last `<answer>`; else what
    follows the last "answer is", "answer:" or "####"; else the whole text. `require_boxed` allows only the first.

    - `float_rounding`: decimal places to which inexact numbers must agree
    - `numeric_precision`: digits to which expressions are evaluated for that
    - `cpu_s`: CPU seconds an answer may use; then it is a TIMEOUT
    - `read_chars`: how much of the end of a text is read
    """

    require_boxed: bool = False
    float_rounding: int = 6
    numeric_precision: int = 15
    cpu_s: float = CPU_S
    read_chars: int = 100_000

    version: ClassVar[str] = "1"

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT, WRONG or UNPARSABLE. Raises `UserError` when the expected answer cannot be read."""
        from math_verify import verify

        gold = _gold(spec.answer)
        said = self._said(answer_text[-self.read_chars :])
        problem = _problem(said)
        if said is None or problem:
            return unparsable(problem)
        found = _parse(said)
        evidence = f"said {said[:500]}, expected {spec.answer[:500]}"
        if not found:
            return unparsable("syntax", evidence)
        same = verify(
            list(gold),
            found,
            float_rounding=self.float_rounding,
            numeric_precision=self.numeric_precision,
            timeout_seconds=None,
        )
        if same:
            return correct(evidence)
        return unparsable("syntax", evidence) if _only_text(found) and not _only_text(gold) else wrong(evidence)

    def _said(self, text: str) -> str | None:
        boxed = extract.boxed(text)
        if boxed is not None or self.require_boxed:
            return boxed
        for rule in (extract.tagged, extract.stated):
            found = rule(text)
            if found is not None:
                return found
        return text.strip()


def latex(text: str) -> str:
    r"""An answer without delimiters, plain notation written as LaTeX.

    >>> latex("$\\frac{1}{2}$"), latex("2*sqrt(3)"), latex("x**2 + 50%")
    ('\\frac{1}{2}', '2 \\cdot \\sqrt{3}', 'x^{2} + 50\\%')
    """
    text = text.strip()
    for left, right in _DELIMITERS:
        if text.startswith(left) and text.endswith(right) and len(text) >= len(left) + len(right):
            text = text[len(left) : len(text) - len(right)].strip()
            break
    if "\\" in text:
        return text
    for pattern, replacement in _PLAIN:
        text = pattern.sub(replacement, text)
    return text


def _problem(said: str | None) -> str:
    """Why an answer is not even tried; empty when it is."""
    if said is None:
        return "no_box"
    if not said:
        return "empty"
    if len(said) > MAX_ANSWER_CHARS:
        return "too_long"
    depth = deepest = 0
    for letter in said:
        depth += (letter in "{([") - (letter in "})]")
        deepest = max(deepest, depth)
    return "too_deep" if deepest > MAX_NESTING else ""


def _parse(said: str) -> list[Any]:
    """math-verify's reading: expressions, and the text itself where it could not be read. Empty when nothing was."""
    from math_verify import LatexExtractionConfig, parse

    return parse(
        rf"\boxed{{{latex(said)}}}",
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
        parsing_timeout=None,
    )


@lru_cache(maxsize=512)
def _gold(answer: str) -> tuple[Any, ...]:
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    inner = extract.boxed(answer)
    found = tuple(_parse(answer if inner is None else inner)) if answer.strip() else ()
    if not found:
        raise UserError(f"math: the expected answer is {answer[:200]!r}; accepted: LaTeX or a plain expression")
    return found


def _only_text(found: Any) -> bool:
    return all(isinstance(one, str) for one in found)
