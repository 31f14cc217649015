"""Finds out what is true of answers: which check, where it runs, and what is already known.

    questions --remembered?--> findings
        |--bounded checks----> here, in the service
        `--the others--------> the pool of worker processes

Equal questions of one call are asked once: rollouts of one group often say the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import parts
from pipeline.errors import UserError
from services.verification import worker
from services.verification.check import CPU_S
from services.verification.finding import Finding, infra_error
from services.verification.pool import Pool
from services.verification.worker import Job
from sluice.v1 import prompt_pb2

ROOM = "verification.check"


@dataclass(frozen=True, slots=True)
class Question:
    """One answer's text, and how to check it. `knobs_json`: the check's knobs, where not those of the run."""

    text: str
    spec: prompt_pb2.CheckSpec
    knobs_json: str = ""


class Remembered:
    """The newest findings by their question's hash, at most `size`. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._found: OrderedDict[bytes, Finding] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Finding | None:
        """What was found, as taking no time; None when it is not known."""
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
        return found

    def put(self, key: bytes, found: Finding) -> None:
        """Remember a finding, where the same would be found again."""
        if not found.lasting or self._size < 1:
            return
        with self._lock:
            self._found[key] = found.remembered()
            self._found.move_to_end(key)
            while len(self._found) > self._size:
                self._found.popitem(last=False)

    def __len__(self) -> int:
        return len(self._found)


@dataclass
class Checker:
    """Checks answers. Thread-safe.

    - `pool`: where checks run that are not bounded
    - `knobs`: knobs of checks, by check name
    - `wall_s`: wall time of one check; one that takes longer without using up its CPU limit is an INFRA_ERROR
    - `remember`: how many findings are kept
    """

    pool: Pool
    knobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    wall_s: float = 10.0
    remember: int = 20_000

    def __post_init__(self) -> None:
        self.remembered = Remembered(self.remember)
        self._knobs_json = {name: json.dumps(dict(knobs), sort_keys=True) for name, knobs in self.knobs.items()}
        for name in self.knobs:
            self.check(name)

    def check(self, name: str) -> Any:
        """The check of that name. Raises `UserError` when there is none, or its knobs are refused."""
        return worker.build(name, self._knobs_json.get(name, "{}"))

    def version(self, name: str, knobs_json: str = "") -> str:
        """The version of a check; empty for one that does not exist, or not with these knobs."""
        try:
            return worker.build(name, knobs_json or self._knobs_json.get(name, "{}")).version
        except UserError:
            return ""

    def delay_s(self, names: Iterable[str]) -> float:
        """The longest stated delay of these checks, seconds."""
        return max((getattr(self.check(name), "delay_s", 0.0) for name in names if self.version(name)), default=0.0)

    def findings(self, questions: Sequence[Question]) -> list[Finding]:
        """What is true of each, in their order. A spec that cannot be used gives INFRA_ERROR `bad_spec`."""
        keys = [self._key(question) for question in questions]
        known = {key: found for key in set(keys) if (found := self.remembered.get(key)) is not None}
        fresh = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
        for key, found in zip(fresh, self._find(list(fresh.values())), strict=True):
            self.remembered.put(key, found)
            known[key] = found
        return [known[key] for key in keys]

    def _find(self, questions: list[Question]) -> list[Finding]:
        found: dict[int, Finding] = {}
        pooled: dict[int, Job] = {}
        for place, question in enumerate(questions):
            try:
                check = worker.build(question.spec.check, self._knobs_of(question))
            except UserError as error:
                found[place] = infra_error("bad_spec", str(error))
                continue
            job = self._job(question, check)
            if getattr(check, "in_process", False):
                found[place] = worker.run(job)
            else:
                pooled[place] = job
        found.update(zip(pooled, self.pool.run(list(pooled.values())) if pooled else (), strict=True))
        return [found[place] for place in range(len(questions))]

    def _job(self, question: Question, check: Any) -> Job:
        spec = question.spec
        cpu_s = getattr(check, "cpu_s", CPU_S)
        wall_s = max(self.wall_s, 2 * cpu_s, getattr(check, "wall_s", 0.0))
        knobs_json = self._knobs_of(question)
        return Job(knobs_json, question.text, spec.check, spec.answer, spec.spec_json, cpu_s, wall_s)

    def _knobs_of(self, question: Question) -> str:
        return question.knobs_json or self._knobs_json.get(question.spec.check, "{}")

    def _key(self, question: Question) -> bytes:
        spec = question.spec
        sha = hashlib.sha256()
        knobs_json = self._knobs_of(question)
        version = self.version(spec.check, knobs_json)
        for text in (spec.check, version, knobs_json, spec.answer, spec.spec_json, question.text):
            data = text.encode("utf-8", "surrogatepass")
            sha.update(len(data).to_bytes(8, "little") + data)
        return sha.digest()


def titles() -> list[tuple[str, str, str, str]]:
    """All checks that ship or that packages offer, by name: (name, what it does, version, why it cannot run here)."""
    return [_title(name) for name in sorted({*parts.names(ROOM), *parts.offered(ROOM)})]


def _title(name: str) -> tuple[str, str, str, str]:
    part = parts.find(ROOM, name)
    unavailable = getattr(part, "unavailable", None)
    title = (sys.modules[part.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return name, title, getattr(part, "version", ""), unavailable() if unavailable else ""
