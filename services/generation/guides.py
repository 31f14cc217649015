"""The guidance parts of a run, put together: what goes into a context, who prunes, who sets temperatures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import parts
from pipeline.errors import UserError
from services.generation.engine.api import Partial
from services.generation.guidance import Guides, Heats, Prunes, Try
from sluice.v1 import prompt_pb2

ROOM = "generation.guidance"


@dataclass(frozen=True)
class Guidance:
    """No parts: requests are sampled as they are."""

    guides: tuple[Guides, ...] = ()
    prunes: Prunes | None = None
    heats: Heats | None = None

    @property
    def look_at(self) -> int:
        """Sampled tokens after which a rollout is looked at; 0 for never."""
        return self.prunes.look_at if self.prunes else 0

    def guided(self, request: prompt_pb2.RolloutRequest) -> prompt_pb2.RolloutRequest:
        """The request with what the parts put into its context; the request itself where that is nothing."""
        added = [one for part in self.guides for one in part.guide(request, request.belief)]
        if not added:
            return request
        again = prompt_pb2.RolloutRequest()
        again.CopyFrom(request)
        again.guidance.extend(added)
        return again

    def pruned(self, request: prompt_pb2.RolloutRequest, begun: Mapping[int, Partial], ended: int) -> Sequence[int]:
        """Which of the rollouts that have begun are ended now. `ended`: how many have come to their end."""
        assert self.prunes is not None
        tries = [Try(i, one.tokens, one.logprobs, _draw(request, i)) for i, one in sorted(begun.items())]
        kept = self.prunes.keep(tries, ended, request.belief)
        return [one.index for one in tries if one.index not in kept]


def build(chosen: Iterable[Mapping[str, Any]]) -> Guidance:
    """From the run file's list. Raises `UserError` for a part that does not exist, or two that do not go together."""
    made = []
    for one in chosen:
        knobs = {key: value for key, value in one.items() if key != "name"}
        made.append(parts.load(ROOM, one["name"], **knobs))
    return Guidance(
        tuple(part for part in made if isinstance(part, Guides)),
        _only([part for part in made if isinstance(part, Prunes)], "prune"),
        _only([part for part in made if isinstance(part, Heats)], "set temperatures"),
    )


def _only(found: list[Any], what: str) -> Any:
    if len(found) > 1:
        names = " and ".join(repr(type(part).__name__) for part in found)
        raise UserError(f"generation.guidance has {names}, which both {what}; accepted: one of them")
    return found[0] if found else None


def _draw(request: prompt_pb2.RolloutRequest, index: int) -> float:
    """A number in (0, 1), the same for the same attempt."""
    digest = hashlib.sha256(f"{request.request_id}/{request.attempt}/{index}/prune".encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2**48
