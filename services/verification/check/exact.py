"""Exact comparison with the expected answer, after stated normalisation of both sides."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import UserError
from services.verification import extract
from services.verification.finding import Finding, correct, unparsable, wrong
from sluice.v1 import prompt_pb2

CASES = ("keep", "fold")
NORMALISATIONS = ("none", "whitespace", "nfkc")


@dataclass(frozen=True)
class Exact:
    """Right when the answer equals `spec.answer`.

    - `tag`: the answer is what follows the last `<tag>`; without one, or with an empty `tag`, the whole text
    - `strip`: white space at both ends does not count
    - `case`: "keep", or "fold" to ignore upper and lower case (Unicode case folding)
    - `normalise`: "none"; "whitespace" makes every run of white space one space; "nfkc" does that after Unicode NFKC
    """

    tag: str = "answer"
    strip: bool = True
    case: str = "keep"
    normalise: str = "none"

    version: ClassVar[str] = "1"
    in_process: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.case not in CASES:
            raise UserError.choice("exact: case", self.case, CASES)
        if self.normalise not in NORMALISATIONS:
            raise UserError.choice("exact: normalise", self.normalise, NORMALISATIONS)

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT, WRONG, or UNPARSABLE when nothing was said."""
        if not spec.answer:
            raise UserError("exact: the expected answer is ''; accepted: a text that is not empty")
        tagged = extract.tagged(answer_text, self.tag) if self.tag else None
        said = self._normal(answer_text if tagged is None else tagged)
        if not said:
            return unparsable("empty")
        evidence = f"said {said[:500]!r}, expected {spec.answer[:500]!r}"
        return correct(evidence) if said == self._normal(spec.answer) else wrong(evidence)

    def _normal(self, text: str) -> str:
        if self.normalise == "nfkc":
            text = unicodedata.normalize("NFKC", text)
        if self.normalise != "none":
            text = " ".join(text.split())
        if self.case == "fold":
            text = text.casefold()
        return text.strip() if self.strip else text
