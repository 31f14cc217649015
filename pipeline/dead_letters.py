"""Dead letters: records that were given up on, with their bytes untouched, and the way back.

Re-driving a request makes a new request that names the old one in `redrives`: its rollouts have had their outcome, so
they are asked for anew. Every other record goes back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from google.protobuf import json_format
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from pipeline import records
from pipeline.errors import Poison
from pipeline.log.api import Log, Record, Send, read_all
from pipeline.topics import Names
from sluice.v1 import control_pb2, prompt_pb2

Letter = control_pb2.DeadLetter


def refused(topic: str, key: str, noun: Message, reason: str, service: str, now_ms: int) -> Letter:
    """Of a noun that could be read and cannot be right: its content and why, for people to look at."""
    return Letter(
        topic=topic,
        key=key.encode(),
        value=noun.SerializeToString(),
        error="Poison",
        reason=reason,
        service=service,
        attempts=1,
        written_ms=now_ms,
    )


def read(log: Log, names: Names) -> Iterator[Letter]:
    """All dead letters, oldest first per partition."""
    for record in read_all(log, names.topic("dead-letters")):
        yield records.decode_as(Letter, record)


def matches(letter: Letter, text: str | None) -> bool:
    """Is the text in its reason, topic or error?"""
    return text is None or text in f"{letter.topic} {letter.error} {letter.reason}"


def redrive(log: Log, names: Names, letters: Sequence[Letter]) -> int:
    """Put them back; returns how many could be."""
    writer = log.writer(names.own("operator.redrive"))
    try:
        with writer.transaction() as transaction:
            transaction.sends.extend(_again(letter) for letter in letters)
    finally:
        writer.close()
    return len(letters)


def _again(letter: Letter) -> Send:
    headers = tuple(sorted(letter.headers.items()))
    record = Record(letter.topic, letter.partition, letter.offset, letter.key, letter.value, headers, letter.record_ms)
    try:
        noun = records.decode(record)
    except Poison:
        noun = None
    if not isinstance(noun, prompt_pb2.RolloutRequest):
        return Send(letter.topic, letter.key, letter.value, headers)
    noun.redrives = noun.redrives or noun.request_id
    noun.request_id = noun.group_id = f"{noun.request_id}-again-{letter.offset}"
    noun.final = True
    return records.encode(letter.topic, noun.request_id, noun)


def show(letters: Sequence[Letter], as_json: bool) -> None:
    """Print them."""
    if as_json:
        for letter in letters:
            print(json.dumps(json_format.MessageToDict(letter)))
        return
    table = Table("topic", "partition", "offset", "service", "tries", "error", "reason")
    for one in letters:
        table.add_row(
            one.topic, str(one.partition), str(one.offset), one.service, str(one.attempts), one.error, one.reason[:100]
        )
    Console().print(table if letters else "no dead letters")
