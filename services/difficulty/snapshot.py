"""The local snapshot: columns, ids and gate in one file, so that a restart reads what came after it and no more.

    line 1    JSON: schema, estimate, what the file covers, the arrays' names, types and shapes
    payload   the arrays, one after the other
    the end   SHA-256 of all before it

Written to a temporary file, fsynced and renamed. `covers` are the next offsets of the posterior topic when it was
written: every record below them is in it. It is a cache: one that is missing, cut short, of another estimate or ahead
of its log is left alone and the topic is read from its beginning. One of a newer major version is refused, because an
older program that went on from it would forget what it cannot read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import UserError
from services.difficulty.index import Index
from services.difficulty.scheduler import Scheduler
from services.difficulty.texts import Texts
from sluice.v1 import posterior_pb2

log = logging.getLogger(__name__)

MAJOR, MINOR = 1, 0
DIGEST = 32
Offsets = Mapping[int, int]
"""Next offset by partition."""


@dataclass(frozen=True)
class Written:
    """A snapshot on disk."""

    prompts: int
    size_bytes: int
    sha256: bytes
    covers: Offsets


def write(path: Path, scheduler: Scheduler, covers: Offsets, prompts: Offsets) -> Iterator[Written]:
    """Write aside, yield what it will be, and put it in its place when asked to go on.

    Between the two the caller makes sure that nobody else has written to the topic below `covers`.
    """
    store, texts = scheduler.store, scheduler.prompts
    arena, ends_P = store.rows.dump()
    arrays = {f"column.{name}": array[: len(store)] for name, array in store.columns.arrays.items()}
    arrays |= {"ids": np.frombuffer(bytes(arena), np.uint8), "ends": ends_P}
    arrays |= {"texts.at": texts.at_P[: len(store)], "texts.size": texts.size_P[: len(store)]}
    records = [scheduler.gate_record(), *store.to_records(np.array(list(store.journals), np.int64))]
    sizes = [record.ByteSize() for record in records]
    arrays["records"] = np.frombuffer(b"".join(record.SerializeToString() for record in records), np.uint8)
    header = {
        "schema": f"{MAJOR}.{MINOR}",
        "estimate": [store.name, *store.estimate.columns],
        "covers": {str(partition): offset for partition, offset in covers.items()},
        "prompts": {str(partition): offset for partition, offset in prompts.items()},
        "domains": list(store.domains),
        "texts_end": texts.sync(),
        "records": sizes,
        "arrays": [(name, array.dtype.str, array.shape) for name, array in arrays.items()],
    }
    aside = path.with_name(f"{_aside(path)}{os.getpid()}")
    digest, size = hashlib.sha256(), 0
    with open(aside, "wb") as file:
        for part in (json.dumps(header).encode() + b"\n", *map(_bytes, arrays.values())):
            digest.update(part)
            size += file.write(part)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
    yield Written(len(texts), size + DIGEST, digest.digest(), covers)
    os.replace(aside, path)


def _aside(path: Path) -> str:
    return f".{path.name}."


def unfinished(path: Path) -> list[Path]:
    """Files of writers that did not come to the end."""
    return list(path.parent.glob(f"{_aside(path)}*"))


def _bytes(array: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(array)).cast("B") if array.size else memoryview(b"")


@dataclass(frozen=True)
class Found:
    """A snapshot that was taken over."""

    covers: Offsets
    prompts: Offsets


def read(path: Path, scheduler: Scheduler, ends: Offsets) -> Found | None:
    """Make the scheduler what the snapshot says; None when there is none that can be used.

    `ends`: next offsets of the posterior topic now. Raises `UserError` for a newer major version.
    """
    if not path.is_file() or path.stat().st_size <= DIGEST:
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        header = _header(content)
        _refuse_newer(header, path)
        why = _useless(header, content, scheduler, ends)
        if why:
            log.warning("the snapshot is left alone (%s): the posterior is read from its topic", why)
            return None
        arrays = _arrays(header, content)
    _adopt(scheduler, header, arrays)
    covers, prompts = ({int(p): offset for p, offset in header[name].items()} for name in ("covers", "prompts"))
    return Found(covers, prompts)


def _header(content: mmap.mmap) -> dict[str, Any]:
    end = content.find(b"\n", 0, 1 << 20)
    try:
        found = json.loads(content[: max(end, 0)] or b"{}")
    except ValueError:
        return {}
    return found | {"begin": end + 1} if isinstance(found, dict) and found else {}


def _refuse_newer(header: dict[str, Any], path: Path) -> None:
    schema = str(header.get("schema", f"{MAJOR}.{MINOR}"))
    major = schema.partition(".")[0]
    if not major.isdigit() or int(major) > MAJOR:
        raise UserError(f"snapshot {path.name!r} has schema {schema!r}; accepted: major {MAJOR} or older")


def _useless(header: dict[str, Any], content: mmap.mmap, scheduler: Scheduler, ends: Offsets) -> str:
    if not header:
        return "it has no header"
    estimate = scheduler.store.estimate
    if header["estimate"] != [scheduler.store.name, *estimate.columns]:
        return f"it was written by estimate {header['estimate'][0]!r}"
    if any(offset > ends.get(int(partition), 0) for partition, offset in header["covers"].items()):
        return "it is ahead of the log"
    if hashlib.sha256(memoryview(content)[:-DIGEST]).digest() != content[-DIGEST:]:
        return "its digest does not fit"
    path = scheduler.texts_path
    if path is None or not path.is_file() or path.stat().st_size < header["texts_end"]:
        return "the prompts' messages that it names are gone"
    return ""


def _arrays(header: dict[str, Any], content: mmap.mmap) -> dict[str, np.ndarray]:
    at, found = header["begin"], {}
    for name, dtype, shape in header["arrays"]:
        count = int(np.prod(shape))
        found[name] = np.frombuffer(content, dtype, count, at).reshape(shape).copy()
        at += count * np.dtype(dtype).itemsize
    return found


def _adopt(scheduler: Scheduler, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    index = Index.load(arrays["ids"].tobytes(), arrays["ends"])
    columns = {name.removeprefix("column."): each for name, each in arrays.items() if name.startswith("column.")}
    assert scheduler.texts_path is not None
    texts = Texts.load(index, scheduler.texts_path, header["texts_end"], arrays["texts.at"], arrays["texts.size"])
    blob, records, at = arrays["records"].tobytes(), [], 0
    for number, size in enumerate(header["records"]):
        kind = posterior_pb2.PosteriorState if number else posterior_pb2.GateState
        records.append(kind.FromString(blob[at : at + size]))
        at += size
    scheduler.adopt(index, columns, {name: n for n, name in enumerate(header["domains"])}, texts, records)
