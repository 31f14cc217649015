"""A log that is only read: one Parquet file for each topic, as `pipeline/archive.py` writes them.

Rows lie in (partition, offset) order. A file's own metadata hold the topic's full name and, for each partition, the
bounds it had. Everything that reads a run (audit, report, rollouts, relearn) reads its archive as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import Lost, UserError
from pipeline.extras import need
from pipeline.log.api import GroupReader, Position, Record, TopicConfig, Writer

BATCH = 1000
"""Rows that are in memory at a time."""

NAME, BOUNDS = b"sluice.topic", b"sluice.bounds"
"""Keys of a file's metadata."""

Bounds = dict[int, tuple[int, int]]


class ArchiveLog:
    """The topics in a folder. Raises `UserError` for whatever would write."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: dict[str, tuple[Path, Bounds]] = {}
        for path in sorted(self.folder.glob("*.parquet")):
            name, bounds = _described(path)
            self._files[name] = (path, bounds)

    def topics(self, prefix: str = "") -> list[str]:
        """See `Log`."""
        return sorted(name for name in self._files if name.startswith(prefix))

    def bounds(self, topic: str) -> Bounds:
        """See `Log`."""
        return dict(self._file(topic)[1])

    def partitions(self, topic: str) -> int:
        """See `Log`."""
        return len(self._file(topic)[1])

    def follow(self, offsets: Mapping[Position, int]) -> ArchiveFollower:
        """See `Log`."""
        return ArchiveFollower({topic: self._file(topic) for topic, _ in offsets}, offsets)

    def close(self) -> None:
        """See `Log`; nothing is held."""

    def create(self, topics: Sequence[TopicConfig]) -> None:
        """Refused."""
        self._refuse()

    def writer(self, transactional_id: str) -> Writer:
        """Refused."""
        self._refuse()

    def group(self, group: str, topics: Sequence[str], member: str, lease_s: float = 10.0) -> GroupReader:
        """Refused."""
        self._refuse()

    def backlog(self, group: str, topic: str) -> int:
        """Refused: what groups had read is not in an archive."""
        self._refuse()

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Refused."""
        self._refuse()

    def expire(self) -> None:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UserError(f"log {str(self.folder)!r} is an archive; accepted: commands that only read")

    def _file(self, topic: str) -> tuple[Path, Bounds]:
        if topic not in self._files:
            raise UserError(f"topic {topic!r} is not in the archive; accepted: {', '.join(self.topics()) or 'none'}")
        return self._files[topic]


class ArchiveFollower:
    """Reads named partitions from named offsets, topic after topic."""

    def __init__(self, files: Mapping[str, tuple[Path, Bounds]], offsets: Mapping[Position, int]) -> None:
        self._files = dict(files)
        self._offsets: dict[Position, int] = {}
        self.seek(offsets)

    def poll(self, timeout: float, max_records: int = 500) -> list[Record]:
        """The next records; empty at the end, without waiting: nothing is ever added."""
        found = list(islice(self._records, max_records))
        self._offsets |= {(one.topic, one.partition): one.offset + 1 for one in found}
        if len(found) < max_records:
            self._offsets = {position: max(at, self._end(position)) for position, at in self._offsets.items()}
        return found

    def positions(self) -> dict[Position, int]:
        """Next offset to read of every partition."""
        return dict(self._offsets)

    def seek(self, offsets: Mapping[Position, int]) -> None:
        """Read on from other offsets. Raises `Lost`."""
        for (topic, partition), offset in offsets.items():
            first, end = self._files[topic][1].get(partition, (0, 0))
            if not first <= offset <= end:
                raise Lost(
                    f"offset {offset} of {topic}[{partition}] is not in the archive, which holds {first} to {end}"
                )
        self._offsets |= offsets
        self._records = self._read(dict(self._offsets))

    def close(self) -> None:
        """Stop reading."""
        self._records = iter(())

    def _end(self, position: Position) -> int:
        topic, partition = position
        return self._files[topic][1][partition][1]

    def _read(self, begins: dict[Position, int]) -> Iterator[Record]:
        parquet = need("pyarrow.parquet")

        for topic, (path, _) in self._files.items():
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH):
                    for row in batch.to_pylist():
                        begin = begins.get((topic, row["partition"]))
                        if begin is not None and row["offset"] >= begin:
                            yield _record(topic, row)


def _record(topic: str, row: dict[str, Any]) -> Record:
    headers = tuple((one["name"], one["value"]) for one in row["headers"])
    return Record(topic, row["partition"], row["offset"], row["key"], row["value"], headers, row["timestamp_ms"])


def _described(path: Path) -> tuple[str, Bounds]:
    pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")

    try:
        found = parquet.read_schema(path).metadata or {}
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"archived topic {str(path)!r} cannot be read: {error}") from error
    if NAME not in found:
        raise UserError(f"{str(path)!r} is no archived topic; accepted: a file that `sluice archive` wrote")
    bounds = {int(partition): (first, end) for partition, (first, end) in json.loads(found[BOUNDS]).items()}
    return found[NAME].decode(), bounds
