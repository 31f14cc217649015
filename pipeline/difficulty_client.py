"""The difficulty service for other trainers: a few calls, no log, no tensors.

    with DifficultyClient("127.0.0.1:50061") as difficulty:
        for prompt_id in difficulty.next(256): ...
        difficulty.observe([(prompt_id, 1.0), Outcome(prompt_id, 0.0, version=7), ...])

`difficulty.order(steps, n)` is an iterator of prompt ids for a trainer that reads a data set in the order of a sampler;
see docs/difficulty.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple

from pipeline.client import connect
from sluice.v1 import difficulty_pb2, difficulty_pb2_grpc, posterior_pb2

DEADLINE_S = 30.0


class Outcome(NamedTuple):
    """What came of one try.

    `accuracy`: in [0, 1]. `version`: of the policy that made it; None is the newest that the service knows of.
    `diversity`: how different the rollouts of its group were, in [0, 1]; None is not measured.
    """

    prompt_id: str
    accuracy: float
    version: int | None = None
    diversity: float | None = None


class DifficultyClient:
    """A difficulty service at `address` (host:port). Every call raises `grpc.RpcError` with the service's sentence.

    Token and certificate come from the environment, as `pipeline.access` names them.
    """

    def __init__(self, address: str, deadline_s: float = DEADLINE_S) -> None:
        self._channel = connect(address)
        self._stub = difficulty_pb2_grpc.DifficultyServiceStub(self._channel)
        self._deadline_s = deadline_s

    def next(self, n: int) -> list[str]:
        """Ids of the `n` prompts to try now. Each call goes on where the one before it ended, with news or without."""
        request = difficulty_pb2.NextRequest(n=n)
        return [choice.prompt_id for choice in self._stub.Next(request, timeout=self._deadline_s).choices]

    def observe(self, outcomes: Iterable[Outcome | tuple[str, float]]) -> int:
        """Tell what came of tries, each an `Outcome` or its first two fields; returns when they are on the log."""
        seen = [difficulty_pb2.Observation(**Outcome(*outcome)._asdict()) for outcome in outcomes]
        request = difficulty_pb2.ObserveRequest(observations=seen)
        return self._stub.Observe(request, timeout=self._deadline_s).accepted

    def posterior(self, prompt_ids: Iterable[str]) -> list[posterior_pb2.PosteriorState]:
        """The whole states of prompts, in the order asked for."""
        request = difficulty_pb2.PosteriorRequest(prompt_ids=list(prompt_ids))
        return list(self._stub.Posterior(request, timeout=self._deadline_s).states)

    def explain(self, prompt_id: str) -> difficulty_pb2.ExplainResponse:
        """Why a prompt is chosen, or is not."""
        return self._stub.Explain(difficulty_pb2.ExplainRequest(prompt_id=prompt_id), timeout=self._deadline_s)

    def order(self, steps: int, n: int) -> Iterator[str]:
        """Prompt ids for `steps` batches of `n`, each batch asked for when its first prompt is wanted."""
        for _ in range(steps):
            yield from self.next(n)

    def close(self) -> None:
        """Let the connection go."""
        self._channel.close()

    def __enter__(self) -> DifficultyClient:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
