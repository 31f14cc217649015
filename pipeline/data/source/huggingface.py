"""Problems of a Hugging Face data set: a hub id, or a local folder that `datasets` can load.

Needs the package `datasets`, which is heavy and is imported only here. A data set that runs its own code is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.data.rows import Columns
from pipeline.errors import UserError
from sluice.v1 import prompt_pb2


@dataclass(frozen=True)
class HuggingFace(Columns):
    """
    `path`: hub id or local folder. `subset`: one of its configurations. `split`: for example "train" or "train[:1000]".
    `revision`: a branch, tag or commit. The other knobs say which column holds what; see `pipeline.data.rows.Columns`.
    """

    path: str = ""
    subset: str = ""
    split: str = "train"
    revision: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError("huggingface: path is ''; accepted: a hub id such as 'openai/gsm8k', or a local folder")

    def prompts(self) -> Iterator[prompt_pb2.Prompt]:
        """One prompt for each row, in the data set's order."""
        name = f"data set {self.path!r} split {self.split!r}"
        family = self.path.rstrip("/").rpartition("/")[2]
        for number, row in enumerate(self._rows(name)):
            yield self.to_prompt(row, f"{name} row {number}", {"family": family})

    def _rows(self, name: str) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise UserError("source 'huggingface' needs the package 'datasets'; accepted: `make setup`") from error
        from datasets.exceptions import DatasetsError

        try:
            rows = datasets.load_dataset(
                self.path, self.subset or None, split=self.split, revision=self.revision or None
            )
        except (DatasetsError, OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{name} cannot be loaded ({reason}); accepted: a hub id or a local folder") from error
        if not len(rows):
            raise UserError(f"{name} holds no rows; accepted: at least one")
        return rows
