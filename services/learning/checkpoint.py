"""A checkpoint: a directory of shards, safetensors for arrays and JSON for the rest. Nothing is ever unpickled.

    write .aside-<name>/ -> fsync every file -> rename to <name>/ -> fsync the folder -> the handler names it on the log

It counts when the log names it, so a directory that nobody named is waste, and `prune` removes it. Its digest is
SHA-256 over the names and digests of its files: `load` returns exactly what `save` was given, or raises `Damaged`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pipeline.errors import Retryable, SluiceError

State = Mapping[str, Any]
"""Shard name -> a non-empty mapping of tensors by name (torch or numpy), or anything that JSON holds."""

ASIDE = ".aside-"
KEEP_AT_LEAST = 2


class Damaged(SluiceError):
    """A checkpoint's files are missing, or are not what the log says they are."""


@dataclass(frozen=True)
class Saved:
    """What lies on disk. `name`: the directory, under the run's checkpoint folder."""

    name: str
    sha256: bytes
    size_bytes: int


def save(root: Path, epoch: int, step: int, state: State) -> Saved:
    """Write a checkpoint, whole or not at all. Raises `Retryable` when the disk does not take it."""
    name = _free_name(root, f"step-{step:012d}-epoch-{epoch}")
    aside = root / f"{ASIDE}{name}"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for shard, content in state.items():
            _sync(_write(aside / shard, content))
        saved = Saved(name, digest(aside), sum(path.stat().st_size for path in aside.iterdir()))
        _sync(aside)
        os.rename(aside, root / name)
        _sync(root)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise Retryable(
            f"the checkpoint of step {step} cannot be written ({error}); the last good one stays"
        ) from error
    return saved


def load(root: Path, name: str, sha256: bytes) -> dict[str, Any]:
    """The state in a checkpoint. Raises `Damaged`."""
    folder = root / name
    if not folder.is_dir():
        raise Damaged(f"checkpoint {name} is not there")
    try:
        if digest(folder) != sha256:
            raise Damaged(f"checkpoint {name} is damaged: its files do not have the digest that the log names")
        return {path.stem: _read(path) for path in sorted(folder.iterdir())}
    except (OSError, SafetensorError, ValueError) as error:
        raise Damaged(f"checkpoint {name} cannot be read ({error})") from error


def digest(folder: Path) -> bytes:
    """SHA-256 over the names and digests of a directory's files, in name order, 32 bytes."""
    whole = hashlib.sha256()
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        with path.open("rb") as file:
            whole.update(
                f"{path.relative_to(folder).as_posix()}\n".encode() + hashlib.file_digest(file, "sha256").digest()
            )
    return whole.digest()


def prune(root: Path, named: Sequence[str], keep: int) -> None:
    """Remove all but the `keep` newest (at least two) directories that the log names; `named` has the newest first."""
    kept = set(named[: max(keep, KEEP_AT_LEAST)])
    for path in _folders(root):
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def newest_step(root: Path) -> int:
    """The highest step of the directories here, whether a log names them or not; 0 when there are none."""
    names = [path.name for path in _folders(root) if not path.name.startswith(ASIDE)]
    return max((int(name.split("-")[1]) for name in names), default=0)


def _folders(root: Path) -> Iterable[Path]:
    wanted = ("step-", ASIDE)
    return [path for path in root.iterdir() if path.is_dir() and path.name.startswith(wanted)] if root.is_dir() else []


def _free_name(root: Path, name: str) -> str:
    taken = {path.name for path in _folders(root)}
    others = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return next(one for one in (name, *others) if one not in taken)


def _write(stem: Path, content: Any) -> Path:
    if not _holds_tensors(content):
        path = stem.with_name(f"{stem.name}.json")
        path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=True))
        return path
    path = stem.with_name(f"{stem.name}.safetensors")
    if type(next(iter(content.values()))).__module__.partition(".")[0] == "torch":
        from safetensors.torch import save_file

        save_file(dict(content), path, metadata={"format": "pt"})
    else:
        import numpy
        from safetensors.numpy import save_file

        arrays = {name: numpy.asarray(array, order="C") for name, array in content.items()}
        save_file(arrays, path, metadata={"format": "np"})
    return path


def _holds_tensors(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(hasattr(value, "dtype") for value in content.values())


def _read(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with safe_open(path, framework="np") as file:
        framework = (file.metadata() or {}).get("format")
    if framework == "pt":
        from safetensors.torch import load_file
    else:
        from safetensors.numpy import load_file
    return load_file(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
