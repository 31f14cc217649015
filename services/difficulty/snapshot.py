"""The local snapshot: columns, ids and gate in one file, so that a restart reads what came after it and no more.

    line 1    JSON: schema, estimate and its knobs, what the file covers, the arrays' names, types and shapes
    payload   the arrays, one after the other
    the end   SHA-256 of all before it

Copied first (`Copy`, in memory: nothing may change meanwhile), then written to a temporary file, fsynced and renamed
(the state may go on). `covers` are the next offsets of the posterior topic when it was copied: every record below them
is in it. It is a cache: one that is missing, damaged, of another estimate, of other knobs or ahead of its log is left
alone and the topic is read from its beginning. Nothing in it is believed before its digest fits. One of a newer major
version is then refused, because an older program that went on from it would forget what it cannot read.
"""

from __future__ import annotations

import copy
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
from services.difficulty.journal import Journal
from services.difficulty.scheduler import Scheduler
from services.difficulty.store import Store
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


@dataclass(frozen=True)
class Copy:
    """What a snapshot says, in memory of its own: whatever comes later changes nothing of it."""

    covers: Offsets
    prompts: Offsets
    store: Store
    """For reading only. Ids are the live store's: a row's id never changes."""
    ids: bytes
    ends_P: np.ndarray
    at_P: np.ndarray
    size_P: np.ndarray
    gate: posterior_pb2.GateState
    texts: Texts
    """The live ones: their file is made durable before a snapshot names it."""
    registered: int


def take(scheduler: Scheduler, covers: Offsets, prompts: Offsets) -> Copy:
    """Copy what a snapshot needs. The caller sees to it that nothing changes before this returns."""
    store, texts = scheduler.store, scheduler.prompts
    arena, ends_P = store.rows.dump()
    still = copy.copy(store)
    still.domains, size = dict(store.domains), len(store)
    still.columns = store.columns.take(np.arange(size))  # read by name, as the live ones are
    still.journals = {row: Journal(j.base, j.changes[:], j.epoch) for row, j in store.journals.items()}
    at_P, size_P = texts.at_P[:size].copy(), texts.size_P[:size].copy()
    gate = scheduler.gate_record()
    return Copy(covers, prompts, still, bytes(arena), ends_P.copy(), at_P, size_P, gate, texts, len(texts))


def write(path: Path, copied: Copy) -> Iterator[Written]:
    """Write aside, yield what it will be, and put it in its place when asked to go on.

    Between the two the caller makes sure that nobody else has written to the topic below `covers`.
    """
    arrays, sizes = _payload(copied)
    copied.texts.sync()
    head = json.dumps(_head(copied, arrays, sizes)).encode() + b"\n"
    aside = path.with_name(f"{_aside(path)}{os.getpid()}")
    digest, size = hashlib.sha256(), 0
    with open(aside, "wb") as file:
        for part in (head, *map(_bytes, arrays.values())):
            digest.update(part)
            size += file.write(part)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
    yield Written(copied.registered, size + DIGEST, digest.digest(), copied.covers)
    os.replace(aside, path)


def _payload(copied: Copy) -> tuple[dict[str, np.ndarray], list[int]]:
    """(the arrays by name, sizes of the records in the last of them)."""
    store = copied.store
    arrays = {f"column.{name}": store.columns[name] for name in store.columns.dtype.names}
    arrays |= {"ids": np.frombuffer(copied.ids, np.uint8), "ends": copied.ends_P}
    arrays |= {"texts.at": copied.at_P, "texts.size": copied.size_P}
    records = [copied.gate, *store.to_records(np.array(list(store.journals), np.int64))]
    for record in records[1:]:
        record.epoch = copied.gate.epoch  # a journal of an older epoch would be left out by who reads it
    told = [record.SerializeToString() for record in records]
    return arrays | {"records": np.frombuffer(b"".join(told), np.uint8)}, list(map(len, told))


def _head(copied: Copy, arrays: Mapping[str, np.ndarray], sizes: list[int]) -> dict[str, Any]:
    return {
        "schema": f"{MAJOR}.{MINOR}",
        "estimate": [copied.store.writer, *copied.store.estimate.columns],
        "covers": {str(partition): offset for partition, offset in copied.covers.items()},
        "prompts": {str(partition): offset for partition, offset in copied.prompts.items()},
        "domains": list(copied.store.domains),
        "texts_end": int((copied.at_P + copied.size_P).max(initial=0)),
        "records": sizes,
        "arrays": [(name, array.dtype.str, array.shape) for name, array in arrays.items()],
    }


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
        header = _header(content) if _whole(content) else None
        if header is not None:
            _refuse_newer(header, path)
        why = "it is damaged" if header is None else _useless(header, scheduler, ends)
        if header is None or why:
            log.warning("the snapshot is left alone (%s): the posterior is read from its topic", why)
            return None
        arrays = _arrays(header, content)
    _adopt(scheduler, header, arrays)
    covers, prompts = ({int(p): offset for p, offset in header[name].items()} for name in ("covers", "prompts"))
    return Found(covers, prompts)


def _whole(content: mmap.mmap) -> bool:
    """Whether it is to the byte what was written."""
    return hashlib.sha256(memoryview(content)[:-DIGEST]).digest() == content[-DIGEST:]


def _header(content: mmap.mmap) -> dict[str, Any]:
    end = content.find(b"\n")
    return json.loads(content[:end]) | {"begin": end + 1}


def _refuse_newer(header: dict[str, Any], path: Path) -> None:
    schema = str(header["schema"])
    major = schema.partition(".")[0]
    if not major.isdigit() or int(major) > MAJOR:
        raise UserError(f"snapshot {path.name!r} has schema {schema!r}; accepted: major {MAJOR} or older")


def _useless(header: dict[str, Any], scheduler: Scheduler, ends: Offsets) -> str:
    store = scheduler.store
    if header["estimate"] != [store.writer, *store.estimate.columns]:
        return f"it was written by estimate {header['estimate'][0]!r}"
    if any(offset > ends.get(int(partition), 0) for partition, offset in header["covers"].items()):
        return "it is ahead of the log"
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
