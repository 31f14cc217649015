"""Right when the text has the wanted sections, each exactly once, in order, with nothing outside.

    CORRECT  <=>  text == <t1>...</t1> white space <t2>...</t2> ...

Source: the format reward of DeepSeek-R1 (arXiv:2501.12948): reasoning in <think>, the answer in <answer>.
Odd cases: a section whose opening or closing tag appears twice is WRONG, for a policy that opens a second <answer> is
hedging; an empty section is WRONG unless `empty` allows it (TON, arXiv:2505.16854, wants empty thoughts). Linear in the
length of the text: no regular expression reads the contents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.verification.finding import Finding, correct, wrong
from sluice.v1 import prompt_pb2


@dataclass(frozen=True)
class Format:
    """
    >>> spec = prompt_pb2.CheckSpec(check="format")
    >>> good, bad = "<think>1+1</think> <answer>2</answer>", "<think>1+1</think> so <answer>2</answer>"
    >>> Format()(good, spec).name, Format()(bad, spec).evidence
    ('CORRECT', "text outside of the sections: 'so'")
    """

    tags: tuple[str, ...] = knob(("think", "answer"), "the sections, in their order")
    outside: bool = knob(False, "whether text outside of the sections is allowed")
    empty: tuple[str, ...] = knob((), "sections that may be empty")

    version: ClassVar[str] = "1"
    in_process: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check(self)
        if not self.tags or not all(isinstance(tag, str) and tag.isidentifier() for tag in self.tags):
            raise UserError(f"format: tags is {self.tags!r}; accepted: one or more names")

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT, or WRONG with what is amiss."""
        fault = self._fault(answer_text)
        return wrong(fault) if fault else correct(f"sections {', '.join(self.tags)}")

    def _fault(self, text: str) -> str:
        at, outside = 0, []
        for tag in self.tags:
            opening, closing = f"<{tag}>", f"</{tag}>"
            if text.count(opening) != 1 or text.count(closing) != 1:
                return f"<{tag}> opened {text.count(opening)} times, closed {text.count(closing)} times; accepted: once"
            begin, end = text.index(opening), text.index(closing)
            if begin < at or end < begin:
                return f"<{tag}> is not where it belongs"
            if tag not in self.empty and not text[begin + len(opening) : end].strip():
                return f"<{tag}> is empty"
            outside.append(text[at:begin])
            at = end + len(closing)
        left = " ".join("".join([*outside, text[at:]]).split())
        return f"text outside of the sections: {left[:80]!r}" if left and not self.outside else ""
