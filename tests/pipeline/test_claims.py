"""Payloads that lie outside the log."""

import os

import fsspec
import pytest

from pipeline import claims, config, doctor
from pipeline.errors import Poison, Retryable, UserError
from pipeline.rundir import RunDir
from sluice.v1 import prompt_pb2


def test_a_payload_comes_back_from_its_claim(tmp_path):
    payload = os.urandom(2_000_000)
    claim = claims.put(str(tmp_path / "store"), payload)
    assert claim.size_bytes == 2_000_000 and len(claim.sha256) == 32
    assert claims.get(claim, str(tmp_path / "store")) == payload


def test_the_same_payload_is_stored_once_and_nothing_is_left_beside_it(tmp_path):
    first, second = (claims.put(str(tmp_path), b"again") for _ in range(2))
    assert first == second
    assert [path.name for path in tmp_path.iterdir()] == [first.sha256.hex()]


def test_an_empty_payload_can_be_claimed(tmp_path):
    assert claims.get(claims.put(str(tmp_path), b""), str(tmp_path)) == b""


def test_a_store_elsewhere_is_reached_through_fsspec():
    claim = claims.put("memory://run", b"payload")
    assert claim.uri.startswith("memory://run/")
    assert claims.get(claim, "memory://run") == b"payload"
    fsspec.filesystem("memory").rm("/run", recursive=True)


@pytest.mark.parametrize(
    "uri",
    [
        "/etc/passwd",
        "{store}/../secret",
        "{store}/sub/" + "a" * 64,
        "file://{store}/" + "a" * 64,
        "http://127.0.0.1:1/" + "a" * 64,
        "simplecache::{store}/" + "a" * 64,
        "{store}-other/" + "a" * 64,
        "",
    ],
)
def test_a_uri_outside_the_store_is_refused_without_being_opened(tmp_path, uri):
    claim = prompt_pb2.Claim(uri=uri.format(store=tmp_path), sha256=b"x" * 32, size_bytes=1)
    with pytest.raises(Poison, match="accepted: payloads under"):
        claims.get(claim, str(tmp_path))


@pytest.mark.parametrize("changed", [b"paylaod", b"payload and more", b"pay"])
def test_a_payload_that_is_not_what_was_claimed_is_poison(tmp_path, changed):
    claim = claims.put(str(tmp_path), b"payload")
    (tmp_path / claim.sha256.hex()).write_bytes(changed)
    with pytest.raises(Poison, match="not the 7 bytes"):
        claims.get(claim, str(tmp_path))


def test_a_payload_that_is_missing_is_poison(tmp_path):
    claim = claims.put(str(tmp_path), b"payload")
    (tmp_path / claim.sha256.hex()).unlink()
    with pytest.raises(Poison, match="not in the store"):
        claims.get(claim, str(tmp_path))


def test_a_store_without_a_name_is_refused():
    with pytest.raises(UserError, match="accepted: an fsspec URL or a folder"):
        claims.put("", b"payload")


def test_a_store_whose_package_is_not_installed_is_refused_at_once(tmp_path):
    made = RunDir.make(tmp_path, config.parse({"claims": "gs://bucket/run"}))
    with pytest.raises(UserError, match="store 'gs://bucket/run' cannot be reached .*; accepted: .*, installed"):
        made.open_log()


def test_a_store_of_no_file_system_is_refused_with_those_that_are():
    with pytest.raises(UserError, match="store 'nowhere://x' is of no file system .*; accepted: file://, s3://"):
        claims.check("nowhere://x")


def test_the_doctor_tries_the_store_with_one_byte_and_leaves_nothing_there(tmp_path):
    run = config.parse({"claims": f"file://{tmp_path}/store"})
    (found,) = [one for one in doctor.examine(run) if one.what == "claims"]
    assert found.good and "takes a payload and gives it back" in found.found
    assert list((tmp_path / "store").iterdir()) == []
    (tmp_path / "file").write_text("")
    (found,) = [
        one for one in doctor.examine(config.parse({"claims": f"file://{tmp_path}/file"})) if one.what == "claims"
    ]
    assert found.good is False and "does not take a payload" in found.found


@pytest.mark.parametrize("does", [claims.put, claims.get, claims.remove], ids=lambda does: does.__name__)
def test_an_error_that_only_the_stores_client_knows_is_tried_again(tmp_path, monkeypatch, does):
    claim = claims.put(f"file://{tmp_path}", b"payload")

    def unreachable(*_, **__):
        raise ValueError("Unable to locate credentials")

    monkeypatch.setattr(fsspec, "open", unreachable)
    monkeypatch.setattr(fsspec.core, "url_to_fs", unreachable)
    with pytest.raises(Retryable, match="Unable to locate credentials"):
        does(f"file://{tmp_path}", b"payload") if does is claims.put else does(claim, f"file://{tmp_path}")
