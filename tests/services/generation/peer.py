"""A learner or a worker as a process of its own, for tests that kill it.

python peer.py learner ADDRESS RUN POLICY EPOCH VERSION ...   publish these versions of the policy in the file POLICY
python peer.py worker ADDRESS RUN DIES_AT                     keep an engine on the newest version; say "version N"

The policy of version N is the file's with N / 1024 added: every test can say what a reader must have.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from pipeline import records
from pipeline.failpoint import reach
from pipeline.log import Log, open_log
from pipeline.log.api import Send, Writer
from pipeline.topics import Names
from services.learning import publish
from services.learning.publish import Plan, Publisher
from sluice.v1 import weights_pb2

Policy = dict[str, np.ndarray]
Spoil = Callable[[Sequence[Send]], list[Send]]


def policy_of(base: Policy, version: int) -> Policy:
    """What a version is: every tensor's first values moved, the rest as it was."""
    moved = {name: array.copy() for name, array in base.items()}
    for array in moved.values():
        array.reshape(-1)[:7] += np.float32(version / 1024)
    return moved


class Learner:
    """Publishes as the service does: transactions of chunks, then one of the manifest."""

    def __init__(self, log: Log, names: Names, epoch: int, anchor_every: int = 100) -> None:
        self.log, self.names, self.epoch = log, names, epoch
        self.writer: Writer = log.writer(f"{names.prefix}.{names.run}.learner")
        self.publisher = Publisher(names.topic("weights"), "main", Plan(anchor_every))
        topic = names.topic("weights-manifest")
        for record in log.follow({(topic, 0): log.bounds(topic)[0][0]}).poll(1.0):
            self.publisher.heard(records.decode_as(weights_pb2.WeightManifest, record))

    def publish(self, policy: Policy, again: bool = False, spoil: Spoil = list) -> int:
        """The next version, or the newest again as an anchor. `spoil` changes what is written of its chunks."""
        publication = self.publisher.begin(self.epoch, again)
        transactions = publication.write(policy.items())
        sends = next(transactions, None)
        while sends is not None:
            with self.writer.transaction() as transaction:
                transaction.sends += spoil(sends)
            reach("test.between_chunks", version=publication.version)
            try:
                sends = transactions.send(transaction.written)
            except StopIteration:
                sends = None
        reach("test.before_manifest", version=publication.version)
        manifest = publication.manifest(publication.version, int(time.time() * 1000))
        with self.writer.transaction() as transaction:
            transaction.sends.append(records.encode(self.names.topic("weights-manifest"), "main", manifest))
        self.publisher.announced(manifest)
        return publication.version


def learner(address: str, run: str, policy: str, epoch: str, *versions: str) -> None:
    """See above. Its transactions are small, so that a version takes several."""
    publish.TRANSACTION_BYTES = 20_000
    with np.load(policy) as file:
        base = dict(file)
    found = Learner(open_log(address), Names("sluice", run), int(epoch))
    for version in versions:
        print(f"published {found.publish(policy_of(base, int(version)))}", flush=True)


def worker(address: str, run: str, dies_at: str) -> None:
    """See above. It dies when it has written half of the tensors of version DIES_AT into its engine."""
    from pipeline.metrics import Meter
    from services.generation.engine import parameters
    from services.generation.engine.api import EngineOptions
    from services.generation.engine.transformers import TransformersEngine
    from services.generation.updater import Updater
    from services.generation.versions import Versions
    from services.generation.weights import WeightReader
    from tests.services.generation.conftest import make_model, make_tokenizer

    engine = TransformersEngine(make_model(0), EngineOptions(slots=4, threads=1), make_tokenizer())
    write = parameters.write

    def deadly(plan: list) -> None:
        if updater.versions.newest == int(dies_at):
            write(plan[: len(plan) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        write(plan)

    parameters.write = deadly
    reader = WeightReader(open_log(address), Names("sluice", run), "main")
    updater = Updater(reader, Versions(engine, 2), Meter("generation", "worker-0"))
    updater.start()
    said = 0
    while True:
        if engine.version != said:
            said = engine.version
            print(f"version {said}", flush=True)
        time.sleep(0.02)


if __name__ == "__main__":
    {"learner": learner, "worker": worker}[sys.argv[1]](*sys.argv[2:])
