"""Prompts go onto the `prompts` topic once, and everybody reads them from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pipeline import records
from pipeline.config import Run
from pipeline.data.load import load_all
from pipeline.data.prompt import ACCEPTED_IDS, RESERVED_IDS, text_of
from pipeline.data.split import merged, split
from pipeline.digest import prompt_digest
from pipeline.errors import UserError
from pipeline.log.api import Log, read_all
from pipeline.recipe import refuse_domains
from pipeline.topics import Names
from sluice.v1 import prompt_pb2

TRAIN, HELD_OUT = "train", "held_out"
PER_TRANSACTION = 500


def registered(log: Log, names: Names) -> Iterator[prompt_pb2.Prompt]:
    """Every prompt on the topic, the first record of each id."""
    found = {}
    for record in read_all(log, names.topic("prompts")):
        prompt = records.decode_as(prompt_pb2.Prompt, record)
        found.setdefault(prompt.prompt_id, prompt)
    yield from found.values()


def held_out(log: Log, names: Names) -> list[prompt_pb2.Prompt]:
    """The problems that are never trained on, in id order."""
    return sorted((p for p in registered(log, names) if p.split == HELD_OUT), key=lambda prompt: prompt.prompt_id)


def prompts_of(run: Run) -> list[prompt_pb2.Prompt]:
    """The run's prompts, each marked as to be trained on or held out.

    Raises `UserError` for an id that cannot be, and for a domain that the recipe names and no prompt has.
    """
    found = [prompt for source in load_all(run.data.sources) for prompt in source.prompts()]
    unique, repeated = merged(found)
    _refuse_ids(unique)
    refuse_domains(run, {prompt.domain for prompt in unique})
    if len(unique) <= run.data.held_out:
        raise UserError(
            f"data.sources give {len(unique)} different questions ({repeated} repeated) and data.held_out is "
            f"{run.data.held_out}; accepted: fewer than there are questions"
        )
    train, kept = split(unique, run.data.held_out, run.seed)
    return [_told(prompt, run.data.system_prompt) for prompt in (*train, *kept)]


def _refuse_ids(unique: Iterable[prompt_pb2.Prompt]) -> None:
    """Refuse reserved ids, and one id of two questions: on the topic the first would stand."""
    first: dict[str, prompt_pb2.Prompt] = {}
    for prompt in unique:
        name = prompt.prompt_id
        if name in RESERVED_IDS:
            raise UserError(f"data.sources have the prompt id {name!r}; accepted: {ACCEPTED_IDS}")
        if first.setdefault(name, prompt) is not prompt:
            asked = " and ".join(repr(text_of(each)[:40]) for each in (first[name], prompt))
            raise UserError(f"data.sources have prompt id {name!r} for {asked}; accepted: one question for each id")


def _told(prompt: prompt_pb2.Prompt, system: str) -> prompt_pb2.Prompt:
    if system:
        prompt.messages.insert(0, prompt_pb2.Message(role="system", parts=[prompt_pb2.Part(text=system)]))
        prompt.digest = prompt_digest(prompt)
    return prompt


def register(log: Log, names: Names, run: Run, say: Callable[[str], None]) -> int:
    """Put the run's prompts on the topic; returns how many it holds. A prompt that changed under its id is refused."""
    known = {prompt.prompt_id: prompt.digest for prompt in registered(log, names)}
    prompts = prompts_of(run)
    for prompt in prompts:
        if known.get(prompt.prompt_id, prompt.digest) != prompt.digest:
            raise UserError(
                f"prompt {prompt.prompt_id!r} is registered with another text; accepted: the same text, or a new id"
            )
    fresh = [prompt for prompt in prompts if prompt.prompt_id not in known]
    writer = log.writer(names.own("operator.prompts"))
    for first in range(0, len(fresh), PER_TRANSACTION):
        with writer.transaction() as transaction:
            for prompt in fresh[first : first + PER_TRANSACTION]:
                transaction.sends.append(records.encode(names.topic("prompts"), prompt.prompt_id, prompt))
    writer.close()
    return len(known) + len(fresh)
