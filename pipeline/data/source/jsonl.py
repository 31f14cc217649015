"""Problems in a file: JSON lines (`.jsonl`, `.json`, `.ndjson`) or Parquet (`.parquet`), one row each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.rows import Columns
from pipeline.errors import UserError
from pipeline.extras import need
from sluice.v1 import prompt_pb2

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")


@dataclass(frozen=True)
class RowsInAFile(Columns):
    """
    `path`: the file. The other knobs say which column holds what; see `pipeline.data.rows.Columns`. Rows without a
    family column have the file's name, without its ending, as their family.
    """

    path: str = ""

    def __post_init__(self) -> None:
        check_path("jsonl", self.path)

    def prompts(self) -> Iterator[prompt_pb2.Prompt]:
        """One prompt for each row, in the file's order."""
        for where, row in rows_of(self.path):
            yield self.to_prompt(row, where, {"family": Path(self.path).stem})


def check_path(what: str, path: str) -> None:
    """Raise `UserError` when that is no file of rows."""
    if Path(path).suffix not in SUFFIXES:
        raise UserError(f"{what}: path is {path!r}; accepted: a file that ends in {', '.join(SUFFIXES)}")
    if not Path(path).is_file():
        raise UserError(f"{what}: file {path!r} does not exist; accepted: an existing file")


def rows_of(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, for errors; the row) of every row, in order. Raises `UserError` for a row that is none."""
    count = 0
    for found in _parquet(path) if path.endswith(".parquet") else _json_lines(path):
        count += 1
        yield found
    if not count:
        raise UserError(f"{path!r} holds no rows; accepted: at least one")


def _json_lines(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path!r} line {number}"
            if not line.strip():
                raise UserError(f"{where} is empty; accepted: one JSON object in every line")
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{where} is no JSON ({error}); accepted: one object, in UTF-8") from error
            if not isinstance(row, dict) or not row:
                raise UserError(f"{where} is {repr(row)[:80]}; accepted: one JSON object that is not empty")
            yield where, row


def _parquet(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path!r} row {number}", row
    except (pyarrow.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path!r} is no readable Parquet file ({reason}); accepted: Parquet") from error
