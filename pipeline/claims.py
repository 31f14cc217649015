"""Payloads too large for a record: kept in the run's store, claimed by a record.

A claim names where the payload is, its SHA-256 and its size. Payloads lie under their digest, so writing one twice is
no matter, and a claim never points at anything but what was claimed. Readers refuse a URI outside the run's own store:
a record must not be able to make a service read other files or other hosts.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import Poison, Retryable, UserError
from sluice.v1 import prompt_pb2

PIECE = 8_000_000
"""Bytes read at a time."""


def check(store_url: str) -> None:
    """Raise `UserError` for a URL whose file system this installation does not have."""
    protocol = fsspec.core.split_protocol(store_url)[0]
    if protocol is None:
        return
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = "the extra sluice[s3]" if protocol in ("s3", "s3a") else "what fsspec asks for"
        raise UserError(f"store {store_url!r} cannot be reached ({error}); accepted: {extra}, installed") from error
    except ValueError as error:
        known = ", ".join(f"{each}://" for each in ("file", "s3", "gs", "abfs"))
        raise UserError(f"store {store_url!r} is of no file system ({error}); accepted: {known} or a folder") from error


def put(store_url: str, payload: bytes) -> prompt_pb2.Claim:
    """Store a payload under `store_url` (an fsspec URL or a folder); returns the claim on it."""
    return put_blocks(store_url, [memoryview(payload)])


def put_blocks(store_url: str, blocks: Sequence[memoryview]) -> prompt_pb2.Claim:
    """As `put`, for a payload in parts that are never put together in memory."""
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    uri = f"{_prefix(store_url)}{digest.hexdigest()}"
    try:
        _write(uri, blocks)
    except (
        Exception
    ) as error:  # a bucket's client has errors of its own, which are no OSError: no credentials, no endpoint
        raise Retryable(f"store {store_url!r} does not take a payload of {size} bytes: {error}") from error
    return prompt_pb2.Claim(uri=uri, sha256=digest.digest(), size_bytes=size)


def remove(claim: prompt_pb2.Claim, store_url: str) -> None:
    """Take a payload out of the store. One that is gone already is no matter. Raises `Retryable`."""
    if not _inside(claim.uri, store_url):
        raise Poison(f"claim points at {claim.uri!r}; accepted: payloads under {_prefix(store_url)!r}")
    try:
        filesystem, path = fsspec.core.url_to_fs(claim.uri)
        filesystem.rm_file(path)
    except FileNotFoundError:
        return
    except Exception as error:  # as in `put_blocks`
        raise Retryable(f"store {store_url!r} does not answer: {error}") from error


def get(claim: prompt_pb2.Claim, store_url: str) -> bytes:
    """The payload of a claim.

    Raises `Poison` for a URI outside the store, for a payload that is missing and for one that is not what was
    claimed; `Retryable` when the store does not answer.
    """
    with _opened(claim, store_url) as file:
        payload = file.read(claim.size_bytes + 1)  # never more than was claimed, whatever lies there
    if len(payload) != claim.size_bytes or hashlib.sha256(payload).digest() != claim.sha256:
        raise Poison(f"payload at {claim.uri!r} is not the {claim.size_bytes} bytes that were claimed")
    return payload


def get_into(claim: prompt_pb2.Claim, store_url: str, blocks: Sequence[memoryview]) -> None:
    """As `get`, into memory that is there already: writable blocks, as large as the payload in all."""
    room = sum(map(len, blocks))
    digest = hashlib.sha256()
    with _opened(claim, store_url) as file:
        short = any(_fill(file, block, digest) < len(block) for block in blocks)
        longer = bool(file.read(1))
    if short or longer or room != claim.size_bytes or digest.digest() != claim.sha256:
        raise Poison(f"payload at {claim.uri!r} is not the {room} bytes that were claimed")


@contextmanager
def _opened(claim: prompt_pb2.Claim, store_url: str) -> Iterator[Any]:
    """The claimed file, if it lies in the store."""
    if not _inside(claim.uri, store_url):
        raise Poison(f"claim points at {claim.uri!r}; accepted: payloads under {_prefix(store_url)!r}")
    try:
        with fsspec.open(claim.uri, "rb") as file:
            yield file
    except FileNotFoundError as error:
        raise Poison(f"claim points at {claim.uri!r}, which is not in the store") from error
    except Exception as error:  # as in `put_blocks`
        raise Retryable(f"store {store_url!r} does not answer: {error}") from error


def _fill(file: Any, block: memoryview, digest: Any) -> int:
    """Read into a block until it is full or the file ends; returns the bytes read."""
    at = 0
    while at < len(block):
        piece = file.read(min(PIECE, len(block) - at))
        if not piece:
            break
        block[at : at + len(piece)] = piece
        digest.update(piece)
        at += len(piece)
    return at


def _prefix(store_url: str) -> str:
    """The store's URL, absolute, ending in a slash.

    >>> _prefix("s3://bucket/run"), _prefix("/runs/demo/")
    ('s3://bucket/run/', '/runs/demo/')
    """
    if not store_url:
        raise UserError("the store is ''; accepted: an fsspec URL or a folder")
    return (store_url if "://" in store_url else os.path.abspath(store_url)).rstrip("/") + "/"


def _inside(uri: str, store_url: str) -> bool:
    """Payloads are files named by their digest directly under the store: nothing else is read.

    >>> _inside("/runs/demo/" + "a" * 64, "/runs/demo")
    True
    >>> _inside("/runs/demo/../../etc/passwd", "/runs/demo"), _inside("http://host/" + "a" * 64, "/runs/demo")
    (False, False)
    """
    folder, name = posixpath.split(uri)
    named = len(name) == 64 and set(name) <= set("0123456789abcdef")
    return named and f"{folder}/" == _prefix(store_url)


def _write(uri: str, blocks: Sequence[memoryview]) -> None:
    filesystem, path = fsspec.core.url_to_fs(uri)
    if not isinstance(filesystem, LocalFileSystem):
        with fsspec.open(uri, "wb") as file:  # object stores show a file when it is closed
            for block in blocks:
                file.write(block)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = f"{path}.{uuid.uuid4().hex}"
    try:
        with open(aside, "wb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)
