"""A run directory: where one run keeps what is not on the log.

run.json          the run file in force, complete, canonical
format.json       which major version of this layout it is
log.db            the embedded log (when that is the log)
topics/           the log of an archive, one Parquet file for each topic
base/             the model before the first step, as a Hugging Face folder
checkpoints/      states that the learner can return to
model/            the trained model, as a Hugging Face folder
logs/             one file per process
summary.json  report.html  metrics.jsonl  tensorboard/
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline import claims, config
from pipeline.claiming import ClaimingLog
from pipeline.errors import UserError
from pipeline.log import Log, open_log
from pipeline.log.archive import ArchiveLog
from pipeline.topics import Names

MAJOR = 1


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    path: Path

    @classmethod
    def of(cls, path: str | Path) -> RunDir:
        """An existing run directory. Raises `UserError` when it is none, or of a newer version."""
        found = cls(Path(path))
        if not found.file("run.json").is_file():
            raise UserError(f"{str(path)!r} is no run directory; accepted: a folder that `sluice run` made")
        major = json.loads(found.file("format.json").read_text())["major"]
        if major > MAJOR:
            raise UserError(f"run directory {str(path)!r} has format {major}; accepted: {MAJOR} or older")
        return found

    @classmethod
    def make(cls, path: str | Path, run: config.Run) -> RunDir:
        """The directory of this run, made when missing; another run's directory is refused."""
        found = cls(Path(path))
        if found.file("run.json").exists():
            config.refuse_another_run(cls.of(path).run(), run)
        found.path.mkdir(parents=True, exist_ok=True)
        found.folder("logs").mkdir(exist_ok=True)
        write_atomically(found.file("format.json"), json.dumps({"major": MAJOR}))
        write_atomically(found.file("run.json"), config.canonical(run))
        return found

    def forget(self) -> None:
        """Take `make` back for a run that was refused before it registered anything: its identity binds nobody."""
        self.file("run.json").unlink()

    def file(self, name: str) -> Path:
        """A file in it."""
        return self.path / name

    folder = file

    def run(self) -> config.Run:
        """The run file in force."""
        return config.parse(json.loads(self.file("run.json").read_text()), where=str(self.file("run.json")))

    def open_log(self) -> Log:
        """The run's log; of an archive one that is only read."""
        if self.folder("topics").is_dir():
            return ArchiveLog(self.folder("topics"))
        address = self.run().log
        claims.check(self.claims_url())
        inner = open_log(str(self.file("log.db")) if address == "embedded" else address)
        return ClaimingLog(inner, self.claims_url())

    def names(self) -> Names:
        """The run's topic names."""
        run = self.run()
        return Names(run.prefix, run.run)

    def claims_url(self) -> str:
        """Where payloads over 900 kB go."""
        return self.run().claims or str(self.folder("claims").resolve())


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(aside, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
