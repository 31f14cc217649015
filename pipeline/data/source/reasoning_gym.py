"""Problems of the `reasoning-gym` generators.

A generator's items follow from its name, settings and seed. Each prompt's check carries its whole item, so that
verifying needs no second generation: four generators give other items in another process unless PYTHONHASHSEED is
fixed.

Some generators cannot be trained on: they have no answer, or pay for anything. `UNSUITABLE` says which and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.prompt import build
from pipeline.errors import UserError
from pipeline.extras import need
from sluice.v1 import prompt_pb2

UNSUITABLE = {
    "boxnet": "its items have no answer",
    "composite": "it mixes other generators, which are named one by one here",
    "game_of_life_halting": "it scores any text 1.0 on half of its items",
    "graph_color": "its items have no answer",
    "propositional_logic": "its items have no answer, and wrong text scores above 0",
    "rubiks_cube": "its items have no answer",
    "rush_hour": "its items have no answer",
}
"""Generators that are refused, with the reason; found by running every generator's scorer on garbage."""


@dataclass(frozen=True)
class ReasoningGym:
    """
    `name`: the generator. `size`: items, at least 1. `seed`: of the generator; item i of seed s may equal item i - 1 of
    seed s + 1. `config`: the generator's own settings. `text`: what the prompt says, with the item's metadata and
    `question` to fill in; "" is the question as it stands. `system`: a system prompt. `domain`: "" is the generator's
    own group, such as "arithmetic".

    >>> [p.check.answer for p in ReasoningGym("spell_backward", size=2, seed=1, text="{word}").prompts()]
    ['ainomma', 'talps']
    """

    name: str
    size: int = 500
    seed: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    system: str = ""
    domain: str = ""

    def __post_init__(self) -> None:
        if self.name in UNSUITABLE:
            raise UserError(f"reasoning_gym: the generator is {self.name!r}, refused because {UNSUITABLE[self.name]}")
        if self.size < 1:
            raise UserError(f"reasoning_gym: size is {self.size!r}; accepted: 1 or more")

    def prompts(self) -> Iterator[prompt_pb2.Prompt]:
        """One prompt for each item, in the generator's order; an item whose answer is to say nothing is left out."""
        dataset = self._dataset()
        domain = self.domain or type(dataset).__module__.split(".")[1]
        for item in dataset:
            if item["answer"] == "":
                continue
            spec = json.dumps({"dataset": self.name, "entry": item}, ensure_ascii=False, default=_plain)
            check = prompt_pb2.CheckSpec(check="reasoning_gym", answer=str(item["answer"]), spec_json=spec)
            yield build([("user", self._says(item))], check, system=self.system, domain=domain, family=self.name)

    def _dataset(self) -> Any:
        reasoning_gym, datasets = need("reasoning_gym"), need("reasoning_gym.factory").DATASETS

        if self.name not in datasets:
            raise UserError.choice("reasoning_gym: the generator", self.name, set(datasets) - set(UNSUITABLE))
        knobs = [name for name in datasets[self.name][1].__dataclass_fields__ if name not in ("size", "seed")]
        for knob in self.config:
            if knob not in knobs:
                raise UserError.choice(f"reasoning_gym {self.name!r}: a setting", knob, knobs)
        try:
            return reasoning_gym.create_dataset(self.name, size=self.size, seed=self.seed, **self.config)
        except (AssertionError, TypeError, ValueError) as error:
            raise UserError(f"reasoning_gym {self.name!r} refuses {dict(self.config)}: {error}") from error

    def _says(self, item: Mapping[str, Any]) -> str:
        if not self.text:
            return item["question"]
        known = {**item["metadata"], "question": item["question"]}
        try:
            return self.text.format_map(known)
        except (KeyError, IndexError, ValueError) as error:
            what = f"reasoning_gym {self.name!r}: what text {self.text!r} fills in"
            raise UserError.choice(what, error.args[0], known) from error


def _plain(value: Any) -> Any:
    """What JSON does not know: numpy's numbers and arrays, sets, and objects by their text."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    return str(value)
