"""A learner that moves and publishes, and workers that read and apply, on a real log: for tests of what travels."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from torch import nn

from pipeline import records
from pipeline.errors import Lost
from pipeline.log import Log
from pipeline.topics import Names
from services.generation.engine import parameters
from services.generation.weights import Broken, WeightReader
from services.learning.publish import Plan, Publisher

NAMES = Names("sluice", "test")


class Tied(nn.Module):
    """Tensors of every kind: a matrix under two names, a vector longer than a chunk's rows, one value, none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Parameter(torch.randn(400, 32))
        self.head = self.embed
        self.bias = nn.Parameter(torch.randn(3000))
        self.cube = nn.Parameter(torch.randn(3, 5, 7))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.none = nn.Parameter(torch.empty(0, 4))


Policy = dict[str, torch.Tensor]


@dataclass
class Learner:
    """A learner's side: a policy in float32 that moves a little, and its publisher. A restart takes the policy back."""

    log: Log
    plan: Plan
    dtype: torch.dtype
    rng: random.Random
    epoch: int = 1
    policy: Policy = field(default_factory=lambda: {n: p.detach().clone() for n, p in Tied().named_parameters()})
    announced: dict[int, Policy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.writer = self.log.writer("test.learner")
        self.publisher = Publisher(NAMES.topic("weights"), "main", self.plan)
        self.saved = {name: tensor.clone() for name, tensor in self.policy.items()}

    def move(self, share: float) -> None:
        """Change about this share of the values, in some tensors."""
        for tensor in self.policy.values():
            if self.rng.random() < 0.8:
                seed = torch.Generator().manual_seed(self.rng.randrange(2**31))
                tensor += (
                    0.1 * torch.randn(tensor.shape, generator=seed) * (torch.rand(tensor.shape, generator=seed) < share)
                )

    def cast(self) -> Policy:
        return {name: tensor.to(self.dtype) for name, tensor in self.policy.items()}

    def publish(self, lose: bool = False, repeat: bool = False, die: bool = False, again: bool = False) -> int:
        """The next version. `lose`: one chunk never reaches the log. `die`: the manifest does not."""
        publication = self.publisher.begin(self.epoch, again)
        cast = self.cast()
        self.write(publication, cast, lose, repeat)
        if die:
            return publication.version
        manifest = publication.manifest(publication.version, 0)
        with self.writer.transaction() as transaction:
            transaction.sends.append(records.encode(NAMES.topic("weights-manifest"), "main", manifest))
        below = self.publisher.announced(manifest)
        if below:
            self.log.trim(*below)
        self.publisher.sweep()
        if not again:
            self.announced[publication.version] = cast
        return publication.version

    def write(self, publication, cast: Policy, lose: bool, repeat: bool) -> None:
        transactions = publication.write(cast.items())
        sends = next(transactions, None)
        while sends is not None:
            lost = self.rng.randrange(len(sends)) if lose and len(sends) > 1 else -1
            with self.writer.transaction() as transaction:
                transaction.sends += [send for at, send in enumerate(sends) if at != lost]
                transaction.sends += sends[: len(sends) // 2] if repeat else []
            written = list(transaction.written)
            if lost >= 0:
                written.insert(lost, written[max(lost - 1, 0)])
            try:
                sends = transactions.send(written[: len(sends) - 1] + written[-1:] if repeat else written)
            except StopIteration:
                return

    def restart(self) -> None:
        """A new process: it goes back to what was saved, and knows of its versions what the log says."""
        self.epoch += 1
        self.policy = {name: tensor.clone() for name, tensor in self.saved.items()}
        manifest = WeightReader(self.log, NAMES, "main").newest(1.0)
        self.publisher = Publisher(NAMES.topic("weights"), "main", self.plan)
        self.publisher.heard(manifest)


class Worker:
    """A reader with a model that it keeps up to date as an engine does: in place, or by an exchange of memory."""

    def __init__(self, log: Log, dtype: torch.dtype, store: str, exchanges: bool = False) -> None:
        self.exchanges = exchanges
        self.reader = WeightReader(log, NAMES, "main", store)
        self.model = Tied().to(dtype).requires_grad_(False)
        self.parameters = parameters.Parameters(self.model)
        self.version: int | None = None
        self.sparse = self.failures = 0

    def turn(self) -> bool:
        """Take the newest version; False when it cannot be reached."""
        manifest = self.reader.newest(0.0)
        if manifest is None or manifest.version == self.version:
            return True
        try:
            update = self.reader.fetch(manifest)
        except (Broken, Lost):
            self.failures += 1
            return False
        changed = update.changed if update.base is not None and update.base == self.version else None
        given: dict[str, torch.Tensor] | None = {} if self.exchanges else None
        parameters.write(self.parameters.plan(update.tensors, changed, given))
        self.sparse += changed is not None and None not in changed.values()
        self.version = update.version
        self.reader.served(update.version, given, whole=changed is None)
        return True

    def assert_serves(self, announced: dict[int, Policy]) -> None:
        if self.version is None:
            return
        for name, tensor in announced[self.version].items():
            served = dict(self.model.named_parameters())[name]
            assert served.dtype == tensor.dtype and bits(served) == bits(tensor), (name, self.version)
            if self.reader.held.version == self.version:
                copy = self.reader.held.tensors[name]
                assert copy.tobytes() == bits(tensor) and copy.ctypes.data != served.data_ptr(), (name, self.version)
        assert self.model.head is self.model.embed


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
