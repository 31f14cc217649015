"""The registered prompts, as a service keeps them: followed from the `prompts` topic."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from pipeline import dead_letters, records
from pipeline.data.prompt import ACCEPTED_IDS
from pipeline.errors import LogUnavailable
from pipeline.log.api import Log
from pipeline.topics import Names
from sluice.v1 import control_pb2, prompt_pb2

CATCH_UP_S = 60.0
REDEFINED = "prompt_digest_differs"
"""Why a prompt is refused whose id is known with another content."""
RESERVED = "prompt_id_reserved"
"""Why a prompt is refused whose id is reserved."""


def dead_letter(prompt: prompt_pb2.Prompt, why: str, service: str, now_ms: int) -> control_pb2.DeadLetter:
    """A prompt on the topic that a service refuses, `REDEFINED` or `RESERVED`: its content and why."""
    said = {
        REDEFINED: f"prompt {prompt.prompt_id!r} is registered with another content; accepted: the same, or a new id",
        RESERVED: f"prompt id is {prompt.prompt_id!r}; accepted: {ACCEPTED_IDS}",
    }
    return dead_letters.refused("prompts", prompt.prompt_id, prompt, f"{why}: {said[why]}", service, now_ms)


class PromptCache:
    """Every prompt by its id; of one that is defined again with another content, the first. Used by one thread.

    `since`: next offset by partition to begin at, where what came before is known. With `keep=False` nothing is held
    in memory: for a caller that takes the news and keeps them itself.
    """

    def __init__(self, log: Log, names: Names, since: Mapping[int, int] | None = None, keep: bool = True) -> None:
        self._log, self._topic, self._keep = log, names.topic("prompts"), keep
        begins = {p: max(first, (since or {}).get(p, first)) for p, (first, _) in log.bounds(self._topic).items()}
        self._follower = log.follow({(self._topic, p): begin for p, begin in begins.items()})
        self.by_id: dict[str, prompt_pb2.Prompt] = {}
        self.refused: list[prompt_pb2.Prompt] = []
        """Later definitions of these with another content, for dead letters."""

    def batches(self, wait: bool = False) -> Iterator[list[prompt_pb2.Prompt]]:
        """Prompts that came since the last call, batch by batch; with `wait`, all that the topic holds now.

        Raises `LogUnavailable` when these do not come in time.
        """
        deadline = time.monotonic() + (CATCH_UP_S if wait else 0.0)
        ends = self._log.bounds(self._topic) if wait else {}
        while True:
            batch = self._follower.poll(0.2 if wait else 0.0, 1000)
            found = [records.decode_as(prompt_pb2.Prompt, record) for record in batch if record.value]
            if batch:
                deadline += 1.0 if wait else 0.0
            if self._keep:
                self.refused += [one for one in found if self.by_id.setdefault(one.prompt_id, one).digest != one.digest]
            yield found
            here = self._follower.positions()
            behind = [
                f"{here[(self._topic, p)]} of {end}" for p, (_, end) in ends.items() if here[(self._topic, p)] < end
            ]
            if not behind:
                return
            if time.monotonic() > deadline:
                raise LogUnavailable(
                    f"the prompts topic was read to offset {', '.join(behind)} and no more came in time"
                )

    def news(self, wait: bool = False) -> list[prompt_pb2.Prompt]:
        """`batches` in one list."""
        return [prompt for batch in self.batches(wait) for prompt in batch]

    def read_up_to(self) -> dict[int, int]:
        """Next offset by partition."""
        return {partition: offset for (_, partition), offset in self._follower.positions().items()}

    def get(self, prompt_id: str) -> prompt_pb2.Prompt | None:
        """A prompt; looks for news when it is unknown."""
        if prompt_id not in self.by_id:
            self.news()
        return self.by_id.get(prompt_id)

    def close(self) -> None:
        """Stop following."""
        self._follower.close()
