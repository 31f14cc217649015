"""A run's archive: a run directory whose log is a folder of Parquet files. It needs no broker and no retention.

    FOLDER/run.json  format.json  base/  model/  summary.json  metrics.jsonl  report.html    as in the run
    FOLDER/topics/NAME.parquet                                    every record of a topic, bytes untouched

Payloads that lay in the run's claim store are in the files themselves. Chunks of weights are left out: the first and
the last model are there as folders, and nothing that reads a finished run needs those between.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import UserError
from pipeline.extras import need
from pipeline.log.api import Log, Record
from pipeline.log.archive import BOUNDS, NAME
from pipeline.rundir import RunDir
from pipeline.topics import TOPICS

LEFT_OUT = ("weights",)
COPIED = ("run.json", "format.json", "base", "model", "summary.json", "metrics.jsonl", "report.html")
RELEARN = "relearn.json"


def archive(directory: RunDir, folder: str | Path) -> dict[str, int]:
    """Write the archive, whole or not at all; records by topic. Raises `UserError`."""
    target = Path(folder)
    if target.exists():
        raise UserError(f"the archive's folder is {str(folder)!r}, which exists; accepted: a new one")
    if directory.folder("topics").exists():
        raise UserError(f"{str(directory.path)!r} is an archive already; accepted: a run directory")
    if directory.file(RELEARN).exists():
        raise UserError(
            f"{str(directory.path)!r} is a relearn, which recorded no stream; accepted: the run it was made from"
        )
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        found = _write(directory, aside)
        os.rename(aside, target)
    except OSError as error:
        raise UserError(f"the archive cannot be written to {str(folder)!r}: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return found


def _write(directory: RunDir, folder: Path) -> dict[str, int]:
    (folder / "topics").mkdir(parents=True)
    for name in COPIED:
        source = directory.file(name)
        if source.is_dir():
            shutil.copytree(source, folder / name)
        elif source.exists():
            shutil.copy2(source, folder / name)
    log, names = directory.open_log(), directory.names()
    try:
        kept = [topic.name for topic in TOPICS if topic.name not in LEFT_OUT]
        return {one: _topic(log, names.topic(one), folder / "topics" / f"{one}.parquet") for one in kept}
    finally:
        log.close()


def _topic(log: Log, topic: str, path: Path) -> int:
    pyarrow, parquet = need("pyarrow"), need("pyarrow.parquet")

    header = pyarrow.struct([("name", pyarrow.string()), ("value", pyarrow.binary())])
    columns = [("partition", pyarrow.int32()), ("offset", pyarrow.int64()), ("timestamp_ms", pyarrow.int64())]
    columns += [("key", pyarrow.binary()), ("value", pyarrow.binary()), ("headers", pyarrow.list_(header))]
    bounds = log.bounds(topic)
    schema = pyarrow.schema(columns, metadata={NAME: topic.encode(), BOUNDS: json.dumps(bounds).encode()})
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for partition, (first, end) in sorted(bounds.items()):
            for batch in _partition(log, topic, partition, first, end):
                rows = [_row(record) for record in batch]
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                count += len(rows)
    return count


def _partition(log: Log, topic: str, partition: int, first: int, end: int) -> Iterable[list[Record]]:
    """Its records below `end`, batch by batch: partitions one after another, so that a file is in order."""
    follower = log.follow({(topic, partition): first})
    try:
        while follower.positions()[(topic, partition)] < end:
            found = [record for record in follower.poll(timeout=0.2, max_records=2000) if record.offset < end]
            if found:
                yield found
    finally:
        follower.close()


def _row(record: Record) -> dict[str, object]:
    headers = [{"name": name, "value": value} for name, value in record.headers]
    fields = {"partition": record.partition, "offset": record.offset, "timestamp_ms": record.timestamp_ms}
    return fields | {"key": record.key, "value": record.value, "headers": headers}
