r"""Right when the answer names the expected choice, or exactly the expected set of choices.

    CORRECT  <=>  set(letters said) == set(letters of spec.answer)

Source: the answer extraction of MMLU-style evaluations; the rule here is stated and has no fallback to guessing.
The letters are read from the last `\boxed{}`; else the last `<answer>`; else what follows the last "answer is",
"answer:" or "####"; else the whole text. There, letters stand alone ("C", "(C)", "C.", "**C**", "A, C", "A and C") or
before the choice's own text ("C) Paris"); or the choice's text stands in full.
Odd cases: "A or B" names two choices, so it is WRONG for either. The article "a" is no choice: in running text only
capitals count, and a sentence that merely begins with a word of one letter ("A dog") is UNPARSABLE.
How many choices were said, how many of them are right and how many are expected are raw rewards (`said`, `right`,
`expected`), for part credit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import UserError
from services.verification import extract
from services.verification.finding import Finding, correct, unparsable, wrong
from services.verification.spec import settings
from sluice.v1 import prompt_pb2

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}")
_BARE = re.compile(r"(?i)^[(\[*_ ]*([a-z])[)\].*_:, ]*$")
_SEVERAL = re.compile(r"(?i)^[(\[*_ ]*[a-z][)\]*_ ]*(?:(?:,|;|/|&|and|or|\+|, *and)[(\[*_ ]*[a-z][)\]*_. ]*)+$")
_LEADING = re.compile(r"^[(\[*_ ]*([A-Z])(?:[)\]*_]*[.):\]]+)[*_ ]*\s*(.+)$", re.DOTALL)
_MAX_READ = 10_000


@dataclass(frozen=True)
class MultipleChoice:
    """`spec.answer`: the letter, or letters ("AC"). `spec.spec_json`: `choices`, their texts in letter order; optional.

    >>> spec = prompt_pb2.CheckSpec(answer="B", spec_json='{"choices": ["Rome", "Paris"]}')
    >>> [MultipleChoice()(text, spec).name for text in ("The answer is (B).", "Paris", "A or B", "I do not know")]
    ['CORRECT', 'CORRECT', 'WRONG', 'UNPARSABLE']
    """

    version: ClassVar[str] = "1"
    in_process: ClassVar[bool] = True

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT, WRONG, or UNPARSABLE when no choice is named. Raises `UserError` for a bad spec."""
        choices = _choices(spec)
        count = len(choices) or len(LETTERS)
        expected = set(re.sub(r"[\s,;]", "", spec.answer.upper()))
        if not expected or not expected <= set(LETTERS[:count]):
            accepted = f"letters from A to {LETTERS[count - 1]}"
            raise UserError(f"multiple_choice: the expected answer is {spec.answer!r}; accepted: {accepted}")
        said = _said(answer_text[-_MAX_READ:])
        letters = _letters(said, choices)
        evidence = f"said {said[:500]!r}, expected {spec.answer!r}"
        if not letters or not letters <= set(LETTERS[:count]):
            return unparsable("no_choice", evidence)
        counts = (("said", len(letters)), ("right", len(letters & expected)), ("expected", len(expected)))
        return correct(evidence, counts) if letters == expected else wrong(evidence, counts)


def _choices(spec: prompt_pb2.CheckSpec) -> list[str]:
    choices = settings("multiple_choice", spec, ("choices",)).get("choices", [])
    good = isinstance(choices, list) and len(choices) <= len(LETTERS) and all(isinstance(one, str) for one in choices)
    if not good:
        raise UserError(f"multiple_choice: choices is {choices!r}; accepted: a list of at most 26 texts")
    return choices


def _said(text: str) -> str:
    for rule in (extract.boxed, extract.tagged, extract.stated):
        if (found := rule(text)) is not None:
            return _TEXT.sub(r"\1", found).strip()
    return text.strip()


def _letters(said: str, choices: list[str]) -> set[str]:
    if one := _BARE.match(said):
        return {one[1].upper()}
    if _SEVERAL.match(said):
        return {letter.upper() for letter in re.findall(r"(?i)\b[a-z]\b", said)}
    if re.fullmatch(r"[A-Z]{2,6}", said) and len(set(said)) == len(said):
        return set(said)
    by_text = {_folded(text): LETTERS[place] for place, text in enumerate(choices)}
    if len(by_text) == len(choices) and _folded(said) in by_text:
        return {by_text[_folded(said)]}
    leading = _LEADING.match(said)
    if leading and (not choices or by_text.get(_folded(leading[2])) in (leading[1], None)):
        return {leading[1]}
    return set()


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
