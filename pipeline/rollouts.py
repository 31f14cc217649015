"""What was said in a run: every rollout joined with its prompt, its verdict and the step that trained on it.

A verdict joins only the rollout whose digest it carries; a step that a rewind voided joins nothing. A record that does
not decode is left out here: it stands among the dead letters.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from pipeline import records
from pipeline.data.prompt import text_of
from pipeline.errors import Poison, UserError
from pipeline.extras import need
from pipeline.log.api import Log, read_all
from pipeline.topics import Names
from pipeline.view import View
from sluice.v1 import prompt_pb2, rollout_pb2, training_pb2

M = TypeVar("M", bound=Message)
Row = dict[str, Any]

OUTCOMES = tuple(
    value.name.removeprefix("VERDICT_OUTCOME_")
    for value in rollout_pb2.VerdictOutcome.DESCRIPTOR.values
    if value.number
)
COLUMNS: dict[str, str] = {
    "request_id": "string",
    "index": "int64",
    "attempt": "int64",
    "group_id": "string",
    "prompt_id": "string",
    "prompt": "string",
    "expected": "string",
    "text": "string",
    "outcome": "string",
    "accuracy": "double",
    "evidence": "string",
    "checker": "string",
    "hidden_outcome": "string",
    "hidden_checker": "string",
    "hidden_evidence": "string",
    "ending": "string",
    "reason": "string",
    "tokens": "int64",
    "versions": "list",
    "worker": "string",
    "ended_ms": "int64",
    "step": "int64",
    "uses": "int64",
    "lag": "double",
    "advantage": "double",
    "weight": "double",
}
"""Every row's fields. What a rollout does not have is None: `outcome` before its verdict, `step` and on when untrained,
`hidden_outcome` and what belongs to it where no stronger check looked.
`step`, `lag`, `advantage` and `weight` are those of its first use."""

EXPORT_BATCH = 1000


def rows(
    log: Log, names: Names, outcome: str | None = None, prompt_id: str | None = None, step: int | None = None
) -> Iterator[Row]:
    """One row for each rollout on the log, in log order, that has this outcome, prompt and step. See `COLUMNS`."""
    wanted = outcome.upper() if outcome else None
    if wanted and wanted not in OUTCOMES:
        raise UserError.choice("the outcome", outcome, OUTCOMES)
    return (
        row
        for row in _joined(log, names)
        if wanted in (None, row["outcome"]) and prompt_id in (None, row["prompt_id"]) and step in (None, row["step"])
    )


def export(found: Iterable[Row], path: str | Path) -> int:
    """Write rows to `path`, whole or not at all: JSON lines or Parquet, as its ending says. Returns how many."""
    path = Path(path)
    if path.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"export file is {str(path)!r}; accepted: a name that ends in .jsonl or .parquet")
    if not path.parent.is_dir():
        raise UserError(f"export folder {str(path.parent)!r} does not exist; accepted: an existing folder")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        count = (_to_parquet if path.suffix == ".parquet" else _to_lines)(iter(found), aside)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return count


def show(found: Sequence[Row]) -> None:
    """Print rows as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{len(found)} rollouts", show_lines=False)
    for heading in ("step", "prompt", "text", "outcome", "lag", "advantage", "tokens", "versions", "ending", "worker"):
        table.add_column(heading, overflow="fold", max_width=48 if heading in ("prompt", "text") else None)
    for row in found:
        cells = [row["step"], row["prompt"], row["text"], row["outcome"], row["lag"], row["advantage"]]
        cells += [row["tokens"], ", ".join(map(str, row["versions"])), row["ending"], row["worker"]]
        table.add_row(*(Text(_cell(cell)) for cell in cells))
    Console().print(table)


def row_of(
    rollout: rollout_pb2.Rollout,
    prompt: prompt_pb2.Prompt | None,
    verdict: rollout_pb2.Verdict | None,
    uses: Sequence[tuple[int, training_pb2.Use]],
) -> Row:
    """One row. `uses` are (step, use) in order."""
    step, use = uses[0] if uses else (None, None)
    looked = verdict and verdict.hidden_outcome
    return {
        "request_id": rollout.key.request_id,
        "index": rollout.key.index,
        "attempt": rollout.key.attempt,
        "group_id": rollout.group_id,
        "prompt_id": rollout.prompt_id,
        "prompt": text_of(prompt) if prompt else None,
        "expected": prompt.check.answer if prompt else None,
        "text": "\n".join(call.text for call in rollout.calls),
        "outcome": _short(rollout_pb2.VerdictOutcome.Name(verdict.outcome)) if verdict else None,
        "accuracy": verdict.accuracy if verdict else None,
        "evidence": verdict.evidence if verdict else None,
        "checker": verdict.checker if verdict else None,
        "hidden_outcome": _short(rollout_pb2.VerdictOutcome.Name(verdict.hidden_outcome)) if looked else None,
        "hidden_checker": verdict.hidden_checker if looked else None,
        "hidden_evidence": verdict.hidden_evidence if looked else None,
        "ending": _short(rollout_pb2.Ending.Name(rollout.ending)),
        "reason": rollout.reason,
        "tokens": sum(len(call.tokens) for call in rollout.calls),
        "versions": sorted({span.version for call in rollout.calls for span in call.spans}),
        "worker": rollout.worker_id,
        "ended_ms": rollout.timings.ended_ms,
        "step": step,
        "uses": len(uses),
        "lag": use.lag if use else None,
        "advantage": use.advantage if use else None,
        "weight": use.weight if use else None,
    }


def _joined(log: Log, names: Names) -> Iterator[Row]:
    prompts: dict[str, prompt_pb2.Prompt] = {}
    for prompt in _nouns(log, names, "prompts", prompt_pb2.Prompt):
        prompts.setdefault(prompt.prompt_id, prompt)
    verdicts = {v.rollout_sha256: v for v in _nouns(log, names, "verdicts", rollout_pb2.Verdict)}
    uses = _uses(log, names)
    for rollout in _nouns(log, names, "rollouts", rollout_pb2.Rollout):
        yield row_of(
            rollout, prompts.get(rollout.prompt_id), verdicts.get(rollout.sha256), uses.get(_name(rollout.key), ())
        )


def _uses(log: Log, names: Names) -> dict[tuple[str, int, int], list[tuple[int, training_pb2.Use]]]:
    view = View()
    for noun in _nouns(log, names, "steps", Message):
        view.add(noun)
    found: dict[tuple[str, int, int], list[tuple[int, training_pb2.Use]]] = {}
    for step in view.steps:
        for use in step.uses:
            found.setdefault(_name(use.key), []).append((step.step, use))
    return found


def _nouns(log: Log, names: Names, topic: str, noun: type[M]) -> Iterator[M]:
    for record in read_all(log, names.topic(topic)):
        try:
            found = records.decode(record) if record.value else None
        except Poison:
            continue
        if isinstance(found, noun):
            yield found


def _name(key: rollout_pb2.RolloutKey) -> tuple[str, int, int]:
    return key.request_id, key.index, key.attempt


def _short(name: str) -> str:
    return name.removeprefix("VERDICT_OUTCOME_").removeprefix("ENDING_")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def _to_lines(found: Iterator[Row], path: Path) -> int:
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        for row in found:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _to_parquet(found: Iterator[Row], path: Path) -> int:
    pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")

    types = {"list": pyarrow.list_(pyarrow.uint64())}
    schema = pyarrow.schema([(name, types.get(kind) or kind) for name, kind in COLUMNS.items()])
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(found, EXPORT_BATCH)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count
