"""Versions: numbered once, committed by their manifest, read back as they were."""

import numpy as np

from pipeline import records, weights
from pipeline.log.api import Record
from services.learning import publish
from services.learning.publish import Publisher

POLICY = {"b": np.arange(5, dtype=np.float32), "a": np.float32(2.0).reshape(()), "w": np.ones((3, 4), np.float32).T}


def write(publication, first_offset):
    """Write its chunks to a log that gives rising offsets; returns the records' chunks."""
    chunks, offset = [], first_offset
    for sends in publication.chunks(POLICY.items()):
        publication.took([(send.topic, 0, offset + number) for number, send in enumerate(sends)])
        for send in sends:
            record = Record(send.topic, 0, offset, send.key, send.value, send.headers, 0)
            chunks.append(records.decode(record))
            offset += 1
    return chunks


def test_a_reader_gets_the_policy_that_was_published():
    publication = Publisher("weights", "main").begin(epoch=2)
    chunks = write(publication, 100)
    manifest = publication.manifest(step=7, now_ms=5)
    reader = weights.Assembler(manifest)
    for chunk in chunks:
        reader.add(chunk)
    read = reader.finish()
    assert read.keys() == POLICY.keys()
    for name, (dtype, shape, data) in read.items():
        assert np.array_equal(np.frombuffer(data, dtype).reshape(shape), POLICY[name])
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
    sizes = [len(sends) for sends in Publisher("weights", "main").begin(1).chunks(POLICY.items())]
    assert sizes == [2, 1]
