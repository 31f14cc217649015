r"""Mathematical equality of LaTeX or plain answers, by math-verify. Runs in a worker process that can be killed.

math-verify reads plain expressions with `eval`; so only its LaTeX reader is used here (an ANTLR grammar), and plain
notation is written as LaTeX first. Its own time limits use `signal.alarm` and are off: the worker's CPU limit is ours.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from pipeline.errors import UserError
from services.verification import extract, notation
from services.verification.finding import Finding, correct, unparsable, wrong
from sluice.v1 import prompt_pb2

MAX_ANSWER_CHARS = 2_000
MAX_NESTING = 60
BOXES = ("last", "same", "set")


@dataclass(frozen=True)
class Math:
    r"""Right when the answer equals `spec.answer` as mathematics.

    The answer is the content of the last `\boxed{}` with balanced braces; else of the last `<answer>`; else what
    follows the last "answer is", "answer:" or "####"; else the whole text. `require_boxed` allows only the first.

    Of several boxes, `boxes` says which count: the "last"; or all must say the "same" (else UNPARSABLE); or together
    they are one "set". A unit that is missing is forgiven, another unit than the expected one is WRONG; 50% is 1/2.

    - `float_rounding`: decimal places to which inexact numbers must agree
    - `numeric_precision`: digits to which expressions are evaluated for that
    - `cpu_s`: CPU seconds an answer may use; then it is a TIMEOUT
    - `read_chars`: how much of the end of a text is read
    """

    require_boxed: bool = False
    boxes: str = "last"
    float_rounding: int = 6
    numeric_precision: int = 15
    cpu_s: float = 1.5
    read_chars: int = 100_000

    version: ClassVar[str] = "2"

    def __post_init__(self) -> None:
        if self.boxes not in BOXES:
            raise UserError.choice("math: boxes", self.boxes, BOXES)

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT, WRONG or UNPARSABLE. Raises `UserError` when the expected answer cannot be read."""
        from math_verify import verify

        gold, unit, gold_is_interval = _gold(spec.answer)
        said = self._said(answer_text[-self.read_chars :])
        problem = _problem(said)
        if said is None or problem:
            return unparsable(problem)
        evidence = f"said {said[:500]}, expected {spec.answer[:500]}"
        value = notation.quantity(said, letters=bool(unit))
        if unit and value.unit and unit != value.unit:
            return wrong(f"another unit: {value.unit}, not {unit}; {evidence}")
        written = notation.latex(value.value)
        found = _parse(notation.interval(written) if gold_is_interval else written)
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
        boxed = self._boxed(text)
        if boxed is not None or self.require_boxed:
            return boxed
        for rule in (extract.tagged, extract.stated):
            found = rule(text)
            if found is not None:
                return found
        return text.strip()

    def _boxed(self, text: str) -> str | None:
        if self.boxes == "last":
            return extract.boxed(text)
        found = list(dict.fromkeys(extract.all_boxed(text)))
        if len(found) < 2:
            return found[0] if found else None
        return ", ".join(found) if self.boxes == "set" else ""


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


def _parse(written: str) -> list[Any]:
    """math-verify's reading: expressions, and the text itself where it could not be read. Empty when nothing was."""
    from math_verify import LatexExtractionConfig, parse

    return parse(
        rf"\boxed{{{written}}}",
        extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
        parsing_timeout=None,
    )


@lru_cache(maxsize=512)
def _gold(answer: str) -> tuple[tuple[Any, ...], str, bool]:
    """The expected answer as math-verify reads it, its unit, and whether it is an interval."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    inner = extract.boxed(answer)
    value = notation.quantity(answer if inner is None else inner)
    written = notation.latex(value.value)
    found = tuple(_parse(written)) if written else ()
    if not found:
        raise UserError(f"math: the expected answer is {answer[:200]!r}; accepted: LaTeX or a plain expression")
    return found, value.unit, notation.is_interval(written)


def _only_text(found: Any) -> bool:
    return all(isinstance(one, str) for one in found)
