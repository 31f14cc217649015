"""`sluice verify audit`: how often a check errs, from answers that somebody has labelled.

Rows come from JSON lines or Parquet. What a row holds, by the column's usual name:

    answer     the text that was said; needed
    label      is it right? true or false, 1 or 0, "correct" or "wrong"; needed
    expected   what the check compares with; where the check needs it
    spec       the check's own settings, an object or its JSON; where the check needs it

A row that cannot be used ends the audit with its line: a sample with holes is another sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.source.jsonl import check_path, rows_of
from pipeline.errors import UserError
from pipeline.verifier_errors import LEVEL, Errors, Rate, compared

COLUMNS = ("answer", "label", "expected", "spec")
NEEDED = ("answer", "label")
LABELS = {"true": True, "1": True, "correct": True, "false": False, "0": False, "wrong": False}
SHOWN = 20
"""Misjudged answers that are shown to people; `--json` has all."""


@dataclass(frozen=True)
class Labelled:
    """One answer, what the check is told of it, and whether it is right. `where` names its row."""

    where: str
    answer: str
    expected: str
    spec_json: str
    right: bool


@dataclass(frozen=True)
class Misjudged:
    """An answer on whose label and outcome one of both is wrong."""

    where: str
    right: bool
    outcome: str
    evidence: str


@dataclass
class Audit:
    """What a labelled sample says of a check."""

    check: str
    version: str
    errors: Errors = field(default_factory=Errors)
    misjudged: list[Misjudged] = field(default_factory=list)

    def add(self, one: Labelled, outcome: str, evidence: str) -> None:
        """The check said this outcome of that answer."""
        self.errors.add(outcome, one.right)
        if compared(outcome, one.right).startswith("false"):
            self.misjudged.append(Misjudged(one.where, one.right, outcome, evidence))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        errors = self.errors
        return {
            "check": self.check,
            "version": self.version,
            "labelled": errors.decided + errors.apart.total(),
            "decided": errors.decided,
            "apart": dict(errors.apart),
            "false_positive_rate": _rate(errors.false_positive_rate),
            "false_negative_rate": _rate(errors.false_negative_rate),
            "interval": f"Wilson, {LEVEL:.0%}",
            "misjudged": [vars(one) for one in self.misjudged],
        }


def columns(given: Iterable[str]) -> dict[str, str]:
    """The columns' names, from "answer=response" and the like. Raises `UserError`."""
    named = {}
    for one in given:
        what, equals, name = one.partition("=")
        if what not in COLUMNS or not equals or not name:
            raise UserError(f"--column is {one!r}; accepted: {' or '.join(COLUMNS)}, then =NAME")
        named[what] = name
    return named


def read(path: str, named: Mapping[str, str]) -> list[Labelled]:
    """Every row. `named`: columns that are not called as usual; such a one must be in every row."""
    check_path("verify audit", path)
    return [_labelled(where, row, named) for where, row in rows_of(path)]


def _labelled(where: str, row: Mapping[str, Any], named: Mapping[str, str]) -> Labelled:
    for what in (*NEEDED, *named):
        if named.get(what, what) not in row:
            raise UserError.choice(f"{where}: the column", named.get(what, what), row)
    told = {what: row.get(named.get(what, what)) for what in COLUMNS}
    if not isinstance(told["answer"], str):
        raise UserError(f"{where}: answer is {str(told['answer'])[:60]!r}; accepted: a text")
    label = LABELS.get(str(told["label"]).lower()) if isinstance(told["label"], bool | int | str) else None
    if label is None:
        raise UserError(f"{where}: label is {told['label']!r}; accepted: true, false, 1, 0, correct or wrong")
    return Labelled(where, told["answer"], _text(told["expected"]), _text(told["spec"]), label)


def show(audit: Audit) -> None:
    """Print it for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    errors, console = audit.errors, Console()
    apart = ", ".join(f"{count} {outcome}" for outcome, count in sorted(errors.apart.items())) or "none"
    title = f"{audit.check} (version {audit.version}): {errors.decided} labelled answers decided, apart: {apart}"
    table = Table("error", f"rate ({LEVEL:.0%} interval), answers", title=title)
    table.add_row("false positives: wrong answers accepted", errors.false_positive_rate.text)
    table.add_row("false negatives: right answers rejected", errors.false_negative_rate.text)
    console.print(table)
    for one in audit.misjudged[:SHOWN]:
        said = f"{one.where}: {one.outcome}, labelled {'correct' if one.right else 'wrong'}. {one.evidence[:200]}"
        console.print(Text(said.rstrip()))
    if len(audit.misjudged) > SHOWN:
        console.print(Text(f"and {len(audit.misjudged) - SHOWN} more; --json has all"))


def _rate(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval()
    return {"rate": rate.value, "low": low, "high": high, "count": rate.count, "of": rate.of}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
