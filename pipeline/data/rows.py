"""From a table's row to a prompt: which column holds what.

Used by every source that reads rows (JSON lines, Parquet, Hugging Face data sets), so that their knobs and their errors
are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.data.prompt import build, turns_of
from pipeline.errors import UserError
from sluice.v1 import prompt_pb2

SHOWN = 80
"""Characters of a wrong value that an error shows."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns. An empty name means that the data set has no such column.

    `prompt`: a text, or a list of {"role", "content"} messages. `answer`: what the check compares with. `prompt_id`:
    the data set's own ids. `spec`: the check's own settings, an object. `solution`: a worked solution. `domain`,
    `family`: labels. `check`: name of the check, for all rows. `system`: a system prompt put in front of every row.
    `hidden_spec`, `hidden_answer`: what the run's `verification.second_look.check` is told, such as tests held back.
    `answer_after`: the answer begins behind the last such text in its column, "####" for GSM8K; empty: it is all of it.
    """

    prompt: str = "prompt"
    answer: str = "answer"
    prompt_id: str = ""
    spec: str = ""
    solution: str = ""
    domain: str = ""
    family: str = ""
    check: str = "exact"
    system: str = ""
    hidden_spec: str = ""
    hidden_answer: str = ""
    answer_after: str = ""

    def wanted(self) -> list[str]:
        """The columns that a row must have."""
        named = (self.prompt, self.answer, self.prompt_id, self.spec, self.solution, self.domain, self.family)
        named += (self.hidden_spec, self.hidden_answer)
        return [name for name in named if name]

    def to_prompt(self, row: Mapping[str, Any], where: str, labels: Mapping[str, str]) -> prompt_pb2.Prompt:
        """The prompt of one row. `where` names it in errors; `labels`: domain and family where no column has them."""
        for column in self.wanted():
            if column not in row:
                raise UserError.choice(f"{where}: the column", column, row)
        return build(
            turns_of(row[self.prompt], f"{where}: column {self.prompt!r}"),
            prompt_pb2.CheckSpec(
                check=self.check, answer=self._answer(row, where), spec_json=_text(row.get(self.spec))
            ),
            _text(row.get(self.prompt_id)),
            self.system,
            domain=_text(row.get(self.domain)) or labels.get("domain", ""),
            family=_text(row.get(self.family)) or labels.get("family", ""),
            reference_solution=_text(row.get(self.solution)),
            hidden=self._hidden(row),
        )

    def _answer(self, row: Mapping[str, Any], where: str) -> str:
        if not self.answer:
            return ""
        answer = "" if row[self.answer] is None else _text(row[self.answer])
        if not answer.strip():
            raise UserError(f"{where}: column {self.answer!r} is empty; accepted: an answer in every row")
        if not self.answer_after:
            return answer
        _, mark, behind = answer.rpartition(self.answer_after)
        # A whole solution taken for the answer would make every right answer WRONG, and nobody would be told.
        if not mark or not behind.strip():
            raise UserError(
                f"{where}: column {self.answer!r} is {_short(answer)} with answer_after {self.answer_after!r}; "
                "accepted: that text in every row, and the answer behind it"
            )
        return behind.strip()

    def _hidden(self, row: Mapping[str, Any]) -> prompt_pb2.CheckSpec | None:
        answer, spec_json = _text(row.get(self.hidden_answer)), _text(row.get(self.hidden_spec))
        return prompt_pb2.CheckSpec(answer=answer, spec_json=spec_json) if answer or spec_json else None


def _text(value: Any) -> str:
    """Texts as they are, nothing as an empty text, numbers as Python writes them, everything else as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 3] + "...")
