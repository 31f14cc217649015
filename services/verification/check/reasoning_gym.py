"""Scores answers with the reasoning-gym generator that made the problem, and closes the holes of its scorers.

The library's scorers were audited (version 0.1.25, all 105 generators). They give points for garbage, so a score below
1 is not a right answer and only documented credit for a poorer solution is PARTIAL; some give the full score to wrong
texts, so a full score is confirmed where that was found (`services/verification/confirm.py`); some `eval` the answer,
so what they are given is first read by a bounded grammar (`services/verification/grammar.py`); one cannot be trusted
at all, and is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from pipeline.errors import UserError
from services.verification import confirm, extract, grammar
from services.verification.finding import Finding, correct, partial, unparsable, wrong
from sluice.v1 import prompt_pb2

REFUSED = {
    "game_of_life_halting": "its scorer gives 1 to any text on a halting board",
    "composite": "its entries belong to the generators in it; name entry.metadata.source_dataset instead",
}

PARTIAL_ABOVE = {
    "boxnet": 0.05,  # share of the boxes that were lifted
    "knight_swap": 0.05,  # solved, with more moves than needed: optimal / used
    "knights_knaves": 0.3,  # 0.3 + 0.7 x share of the people
    "prime_factorization": 0.49,  # 0.5: right product, not all factors prime
    "quantum_lock": 0.49,  # 0.5: right state, not the shortest way
    "shortest_path": 0.49,  # 0.5: a path, not a shortest one
    "tower_of_hanoi": 0.05,  # solved, with more moves than needed: optimal / used
}
"""Generators whose score between this and 1 is documented credit for a poorer solution."""

NEARLY_ONE = {"complex_arithmetic": 0.99, "polynomial_equations": 0.99}
"""Generators whose score falls with the distance between real numbers: rounding is not an error. Elsewhere a score of
0.99 may be a wrong answer: a date one day off, a word spelt right with more letters behind it."""


@dataclass(frozen=True)
class ReasoningGym:
    """Right when the generator's own scorer gives 1. The raw score is the reward "score".

    `spec.spec_json` is an object: `dataset` (the generator's name), `entry` (the whole entry as it was generated:
    question, answer, metadata) and, where the generator was configured, `config`.

    - `tag`: the answer is what follows the last `<tag>`; without one, or with an empty `tag`, the whole text
    - `max_chars`: a longer answer is not read
    """

    tag: str = "answer"
    max_chars: int = 20_000

    version: ClassVar[str] = "1"

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """CORRECT, WRONG, PARTIAL or UNPARSABLE. Raises `UserError` for a spec that cannot be used."""
        name, entry, score_answer = _read(spec)
        said = extract.answer(answer_text, self.tag)
        if not said:
            return unparsable("empty")
        if len(said) > self.max_chars:
            return unparsable("too_long", f"{len(said)} characters; accepted: {self.max_chars}")
        expected = entry.get("answer")
        evidence = f"said {said[:500]!r}, expected {str(expected)[:500]!r}"
        if not grammar.allowed(name, said):
            plainly = said == str(expected).strip() or said in entry["metadata"].get("valid_answers", ())
            return correct(evidence, (("score", 1.0),)) if plainly else wrong(evidence, (("score", 0.0),))
        try:
            score = float(score_answer(said, entry))
            full = score >= NEARLY_ONE.get(name, 1.0) and confirm.holds(name, said, entry)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
            return unparsable("scorer_raised", f"{type(error).__name__}: {error}; {evidence}")
        return _judge(name, score, full, evidence)


def refusal(name: str) -> str:
    """Why a generator is refused; empty when it is not. For whoever makes prompts, to ask early.

    >>> refusal("spell_backward"), bool(refusal("game_of_life_halting"))
    ('', True)
    """
    return REFUSED.get(name, "")


def _judge(name: str, score: float, full: bool, evidence: str) -> Finding:
    rewards = (("score", score if math.isfinite(score) else 0.0),)
    if full:
        return correct(evidence, rewards)
    if PARTIAL_ABOVE.get(name, 1.0) < score < 1.0:
        return partial(score, evidence, rewards)
    return wrong(evidence, rewards)


def _read(spec: prompt_pb2.CheckSpec) -> tuple[str, dict[str, Any], Callable[[str, dict[str, Any]], float]]:
    """(generator, entry, its scorer). The entry is decoded anew each time, because some scorers write into it."""
    try:
        given = json.loads(spec.spec_json)
        name, entry = given["dataset"], given["entry"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"reasoning_gym: spec is {spec.spec_json[:80]!r}; accepted: an object with 'dataset' and 'entry'"
        ) from error
    if not isinstance(entry, dict) or "answer" not in entry or not isinstance(entry.get("metadata"), dict):
        raise UserError(f"reasoning_gym: entry of {name!r} is no generated entry; accepted: question, answer, metadata")
    if name in ("arc_agi", "rearc"):
        entry["metadata"]["output"] = tuple(tuple(row) for row in entry["metadata"]["output"])
    return name, entry, _scorer(name, json.dumps(given.get("config") or {}, sort_keys=True))


@lru_cache(maxsize=256)
def _scorer(name: str, config_json: str) -> Callable[[str, dict[str, Any]], float]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if name in REFUSED:
        raise UserError(f"reasoning_gym: dataset is {name!r}, which is refused: {REFUSED[name]}")
    if name not in DATASETS:
        raise UserError.choice("reasoning_gym: dataset", name, DATASETS)
    config = json.loads(config_json)
    if not config:
        return reasoning_gym.get_score_answer_fn(name)
    try:
        return reasoning_gym.create_dataset(name, **config).score_answer
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"reasoning_gym: config of {name!r} is {config_json[:200]}: {error}") from error
