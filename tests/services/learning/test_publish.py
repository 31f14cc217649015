"""Versions: numbered once, committed by their manifest, read back as they were."""

import numpy as np
import pytest

from pipeline import records
from pipeline.errors import UserError
from pipeline.held import Held
from pipeline.log.api import Record
from services.learning import publish
from services.learning.publish import Plan, Publisher

POLICY = {"b": np.arange(5, dtype=np.float32), "a": np.float32(2.0).reshape(()), "w": np.ones((3, 4), np.float32).T}


def write(publication, first_offset, policy=POLICY):
    """Write its chunks to a log that gives rising offsets; returns the records' chunks."""
    chunks, offset = [], first_offset
    transactions = publication.write(policy.items())
    sends = next(transactions, None)
    while sends is not None:
        for number, send in enumerate(sends):
            record = Record(send.topic, 0, offset + number, send.key, send.value, send.headers, 0)
            chunks.append(records.decode(record))
        written = [(send.topic, 0, offset + number) for number, send in enumerate(sends)]
        offset += len(sends)
        try:
            sends = transactions.send(written)
        except StopIteration:
            break
    return chunks


def test_a_reader_gets_the_policy_that_was_published():
    publication = Publisher("weights", "main").begin(epoch=2)
    chunks = write(publication, 100)
    manifest = publication.manifest(step=7, now_ms=5)
    held = Held()
    held.begin(manifest)
    for chunk in chunks:
        held.take(chunk)
    held.finish(manifest)
    assert held.version == 1 and held.tensors.keys() == POLICY.keys()
    for name, array in POLICY.items():
        assert held.tensors[name].tobytes() == array.tobytes()
    part = manifest.parts[0]
    assert (part.first_offset, part.last_offset, part.chunks, part.anchor) == (100, 99 + len(chunks), len(chunks), True)
    assert (manifest.version, manifest.epoch, manifest.step, manifest.dense_bytes) == (1, 2, 7, 4 * (5 + 1 + 12))


def test_a_version_that_was_never_announced_gives_its_number_back_and_an_announced_one_never():
    publisher = Publisher("weights", "main")
    assert [publisher.begin(1).version, publisher.begin(1).version] == [1, 1]
    publication = publisher.begin(1)
    write(publication, 0)
    publisher.announced(publication.manifest(1, 0))
    assert publisher.begin(1).version == 2
    restarted = Publisher("weights", "main")
    restarted.heard(publication.manifest(1, 0))
    assert restarted.begin(2).version == 2


def test_the_weights_topic_is_trimmed_below_the_second_newest_anchor():
    publisher = Publisher("weights", "main")
    trims = []
    for offset in (0, 10, 20):
        publication = publisher.begin(1)
        write(publication, offset)
        trims.append(publisher.announced(publication.manifest(1, 0)))
    assert trims == [None, ("weights", 0, 0), ("weights", 0, 10)]


def test_large_policies_are_written_in_several_transactions(monkeypatch):
    monkeypatch.setattr(publish, "TRANSACTION_BYTES", 40)
    publication = Publisher("weights", "main").begin(1)
    transactions = publication.write(POLICY.items())
    sizes = [len(next(transactions)), len(transactions.send([("weights", 0, 0), ("weights", 0, 1)]))]
    assert sizes == [2, 1]


def versions(publisher, *policies):
    """Publish these policies; the manifests."""
    offset, found = 0, []
    for step, policy in enumerate(policies, 1):
        publication = publisher.begin(1)
        offset += len(write(publication, offset, policy))
        found.append(publication.manifest(step, 0))
        publisher.announced(found[-1])
    return found


def changed(policy, *places):
    """The policy with these values of `b` one higher."""
    b = policy["b"].copy()
    b[list(places)] += 1
    return policy | {"b": b}


def said(manifest):
    """(version, is it an anchor, chunks) of every part."""
    return [(part.version, part.anchor, part.chunks) for part in manifest.parts]


WIDE = {"b": np.zeros(1000, np.float32), "w": np.ones((3, 4), np.float32)}


def test_a_version_is_what_changed_and_every_so_often_an_anchor_too():
    publisher = Publisher("weights", "main", Plan(anchor_every=3))
    steps = [WIDE, changed(WIDE, 5), changed(WIDE, 5, 6), changed(WIDE, 7), changed(WIDE, 8)]
    found = versions(publisher, *steps)
    assert said(found[0]) == [(1, True, 2)]
    assert said(found[1]) == [(1, True, 2), (2, False, 1)]
    assert said(found[3]) == [(1, True, 2), (2, False, 1), (3, False, 1), (4, False, 1), (4, True, 2)]
    assert said(found[4])[-2:] == [(4, True, 2), (5, False, 1)]
    assert [part.base_version for part in found[4].parts if not part.anchor] == [1, 2, 3, 4]
    assert found[1].parts[1].density == 1 / 1012 and found[1].parts[1].size_bytes < 30


def test_a_delta_that_would_not_pay_is_an_anchor():
    publisher = Publisher("weights", "main", Plan(anchor_every=9, dense_above=0.1))
    rng = np.random.default_rng(0)
    noise = {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in WIDE.items()}
    found = versions(publisher, WIDE, noise, changed(noise, 3))
    assert said(found[1])[-1] == (2, True, 2) and len(found[1].parts) == 2
    assert said(found[2])[-1] == (3, False, 1)


def test_what_was_never_announced_is_no_base():
    """The version's chunks may be on the log; the next one is complete by itself."""
    publisher = Publisher("weights", "main", Plan(anchor_every=9))
    versions(publisher, WIDE)
    write(publisher.begin(1), 50, changed(WIDE, 1))
    (manifest,) = versions(publisher, changed(WIDE, 2))
    assert said(manifest) == [(2, True, 2)]


def test_an_anchor_that_is_wanted_is_the_same_version_again_or_a_new_one_without_a_copy():
    publisher = Publisher("weights", "main", Plan(anchor_every=9))
    versions(publisher, WIDE, changed(WIDE, 1))
    again = publisher.begin(1, again=True)
    write(again, 70, {"never": "read"})
    manifest = again.manifest(2, 0)
    assert said(manifest) == [(1, True, 2), (2, False, 1), (2, True, 2)]
    publisher.announced(manifest)
    assert publisher.version == 2
    assert Publisher("weights", "main", version=4).begin(2, again=True).version == 5


def test_a_version_that_changes_nothing_has_no_chunks():
    publisher = Publisher("weights", "main", Plan(anchor_every=9))
    found = versions(publisher, WIDE, WIDE, changed(WIDE, 1))
    assert said(found[1])[-1] == (2, False, 0) and said(found[2])[-1] == (3, False, 1)


def test_retention_never_reaches_into_the_chain_before_the_newest_anchor():
    publisher = Publisher("weights", "main", Plan(anchor_every=2))
    offset, trims = 0, []
    for step in range(1, 8):
        publication = publisher.begin(1)
        offset += len(write(publication, offset, changed(WIDE, step)))
        trims.append(publisher.announced(publication.manifest(step, 0)))
    # Offsets: v1 anchor 0-1, v2 delta 2, v3 delta 3 and anchor 4-5, v4 6, v5 7 and 8-9, v6 10, v7 11 and 12-13.
    assert [trim and trim[2] for trim in trims] == [None, None, 0, 0, 4, 4, 8]


def test_anchors_in_a_store_go_when_no_chain_begins_with_them(tmp_path):
    publisher = Publisher("weights", "main", Plan(anchor_every=1_000, store=str(tmp_path)))
    for step in range(1, 5):
        publisher.anchor_wanted = True
        versions(publisher, changed(WIDE, step))
        publisher.sweep()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_store_that_does_not_answer_is_stood_in_for_by_the_log(tmp_path, caplog):
    (tmp_path / "file").touch()
    publisher = Publisher("weights", "main", Plan(anchor_every=4, store=str(tmp_path / "file" / "below")))
    (manifest,) = versions(publisher, WIDE)
    assert said(manifest) == [(1, True, 2)] and "its anchor goes to the log" in caplog.text


def test_a_policy_of_other_tensors_is_refused():
    publisher = Publisher("weights", "main", Plan(anchor_every=4))
    versions(publisher, WIDE)
    with pytest.raises(UserError, match=r"tensor 'w' is float32 \(4, 3\); accepted: what was published before"):
        versions(publisher, WIDE | {"w": np.ones((4, 3), np.float32)})
