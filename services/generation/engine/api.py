"""What an engine is.

An engine holds one policy and runs on a thread of its own. Whoever uses it submits jobs, collects completions and, now
and then, applies new weights; all of that is safe from any thread. An engine stamps the version of every token at the
moment it samples it, and reports the log-prob of the distribution that it sampled from.

    submit(job) --> [ waiting ] --> [ running: slots ] --> finished(timeout)
                                       ^ apply(version, tensors), between two steps
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pipeline.errors import SluiceError
from pipeline.lora import Adapter
from sluice.v1 import prompt_pb2, rollout_pb2

if TYPE_CHECKING:
    import torch

    from services.generation.guidance import Heats

KV_POLICIES = ("keep", "recompute")
"""What happens to the cached context of running rows at a weight update."""


class EngineDied(SluiceError):
    """The engine's thread or process ended by an error; nothing it held will come back."""


@dataclass(frozen=True, slots=True)
class Job:
    """One rollout to sample.

    `id` is unique among jobs not yet finished. `tokens`: context, token ids. `seed` fixes the draws, whatever else is
    in the batch. `deadline_ms`: milliseconds since the Unix epoch, 0 for none. `train`: sampled for training.
    `look_at`: sampled tokens after which its beginning is shown (`Engine.partials`), 0 for never.
    """

    id: str
    tokens: tuple[int, ...]
    sampling: prompt_pb2.SamplingParams
    seed: int
    deadline_ms: int = 0
    train: bool = True
    look_at: int = 0


@dataclass(frozen=True, slots=True)
class Partial:
    """The beginning of a job that goes on: its tokens so far, and their log-probs."""

    id: str
    tokens: list[int]
    logprobs: list[float]


@dataclass(frozen=True, slots=True)
class Completion:
    """How a job ended.

    `logprobs`: natural log, of the distribution each token was drawn from (temperature applied; of the distribution at
    temperature 1 for greedy draws). `spans`: (first token, version), the first begins at 0; empty without tokens.
    `temperatures`: what each token was drawn at, empty where that is what was asked for. `text` has no stop string.
    `queued_s`: from submit to the first token; `generated_s`: from there to the last.
    """

    id: str
    tokens: list[int]
    logprobs: list[float]
    spans: list[tuple[int, int]]
    ending: rollout_pb2.Ending
    text: str = ""
    reason: str = ""
    queued_s: float = 0.0
    generated_s: float = 0.0
    temperatures: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Settings that every engine understands.

    `slots`: rollouts sampled at the same time. `max_len`: context plus sampled tokens; 0 means as the model says.
    `kv`: "keep" or "recompute". `device`: "auto", "cpu", "cuda". `dtype`: "auto" (bfloat16 on a GPU, float32 on a CPU),
    "float32", "bfloat16", "float16". `threads`: torch's CPU threads, 0 leaves them. `replicas`: engines of this kind
    side by side, each with its own slots. `tensor_parallel`: devices that one engine spreads its model over. `heats`:
    sets the temperatures of training rollouts token by token. `extra`: the engine's own settings.
    `adapter`: the LoRA adapter that the policy consists of, beside the model; None: the policy is the whole model.
    `quantization`: "none" or "fp8", of the weights as they are applied (see `pipeline/serving.py`).
    """

    slots: int = 64
    max_len: int = 0
    kv: str = "keep"
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    replicas: int = 1
    tensor_parallel: int = 1
    heats: Heats | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    adapter: Adapter | None = None
    quantization: str = "none"


class Engine(Protocol):
    """Samples rollouts from one policy."""

    name: str
    """Engine and its version, for example "transformers 5.19.0"."""
    version: int
    """Version of the weights that are applied; 0 before the first."""
    max_len: int
    """Most tokens of context and answer together."""

    kv_shared: bool
    """Do sequences compete for the key-value cache? False where every slot has room for the longest one."""

    @property
    def replicas(self) -> int:
        """Engines that it stands for and that live."""
        ...

    def submit(self, job: Job) -> None:
        """Take a job; it waits until a slot is free."""
        ...

    def abort(self, ids: Collection[str], reason: str = "aborted") -> None:
        """End these jobs soon, with what they have (ABORTED, for that reason). Unknown ids are ignored."""
        ...

    def partials(self) -> list[Partial]:
        """Beginnings that jobs asked to be shown, since the last call; does not wait."""
        ...

    def finished(self, timeout: float) -> list[Completion]:
        """Jobs that ended since the last call; waits up to `timeout` seconds for one. Raises `EngineDied`."""
        ...

    def apply(
        self,
        version: int,
        tensors: Mapping[str, torch.Tensor],
        changed: Mapping[str, torch.Tensor | None] | None = None,
        given: MutableMapping[str, torch.Tensor] | None = None,
    ) -> float:
        """Sample with these weights from the next step on. Returns the seconds for which generation stood still.

        `tensors`: the whole policy; with an adapter that is its tensors. `changed`: what in it may differ from the
        version that is applied, as flat int64 positions by name (None: all of that tensor; a name that is left out:
        nothing). Without it everything may. `given`: where the engine may put, by name, memory of its own in exchange
        for a tensor's, which it keeps: it holds what was applied before. Without it every tensor stays the caller's.
        Raises `UserError`, with the differences, for a policy of another shape. Raises `EngineDied`.
        """
        ...

    def running(self) -> int:
        """Jobs taken and not ended, waiting ones included."""
        ...

    def capacity(self) -> int:
        """Jobs that are sampled at the same time at most."""
        ...

    def kv_use(self) -> float:
        """Share of the key-value cache that holds something, [0, 1]."""
        ...

    def preempted(self) -> int:
        """Sequences that were put out of the cache again since the start, because others needed the room."""
        ...

    def busy_s(self) -> float:
        """Seconds in which it computed."""
        ...

    def close(self) -> None:
        """End the thread and give memory back."""
        ...
