"""Several checks of one answer: each gives a named reward, and the marked ones decide accuracy.

    accuracy = min over deciding checks of their accuracy;   CORRECT  <=>  every deciding check says CORRECT
    rewards  = (name, accuracy of that check) for every check, then (name.reward, value) for their own raw rewards

Source: the rule-plus-format rewards of DeepSeek-R1 and the multi-aspect rewards of HARMO (arXiv:2510.05283). Nothing is
weighed here: what a component is worth is the recipe's.
Odd cases: when any component's checker fails, also one that does not decide, the whole is an INFRA_ERROR: a missing
reward is no 0. The outcome of a composite that is not CORRECT is that of the deciding check with the lowest accuracy,
the first named of those; PARTIAL when all of them give some credit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from pipeline import parts
from pipeline.errors import UserError
from pipeline.knobs import check, knob
from services.verification.finding import Finding, correct, infra_error
from services.verification.spec import needed, settings
from sluice.v1 import prompt_pb2, rollout_pb2

_KEYS = ("name", "check", "answer", "spec", "knobs", "decides")


@dataclass(frozen=True)
class Composite:
    r"""`spec.spec_json`: `checks`, a list of {"name", "check", "answer", "spec", "knobs", "decides"}.

    Where none is marked with `decides`, the first decides. `spec.answer` is every component's expected answer that has
    none of its own.

    >>> spec = prompt_pb2.CheckSpec(answer="7", spec_json=json.dumps({"checks": [
    ...     {"name": "right", "check": "exact", "decides": True}, {"name": "shape", "check": "format"}]}))
    >>> found = Composite()("<answer>7</answer>", spec)
    >>> found.name, found.rewards
    ('CORRECT', (('right', 1.0), ('shape', 0.0)))
    """

    cpu_s: float = knob(5.0, "CPU time of one answer, all checks together", unit="s", gt=0, le=300)
    wall_s: float = knob(30.0, "wall time of one answer, all checks together", unit="s", gt=0, le=600)

    version: ClassVar[str] = "1"

    __post_init__ = check

    def __call__(self, answer_text: str, spec: prompt_pb2.CheckSpec) -> Finding:
        """As the deciding checks find. Raises `UserError` for a bad spec of its own or of a component."""
        components = _components(spec)
        found = {one["name"]: self._ask(one, answer_text, spec.answer) for one in components}
        failed = [name for name, one in found.items() if one.outcome == rollout_pb2.VERDICT_OUTCOME_INFRA_ERROR]
        if failed:
            return infra_error(found[failed[0]].reason, f"{failed[0]}: {found[failed[0]].evidence}")
        deciding = [one["name"] for one in components if one.get("decides")] or [components[0]["name"]]
        worst = min((found[name] for name in deciding), key=lambda one: one.accuracy)
        made = worst if worst.accuracy < 1 else correct()
        evidence = "; ".join(f"{name}: {one.name} {one.evidence[:300]}".strip() for name, one in found.items())
        return replace(made, rewards=_rewards(found), evidence=evidence, cpu_s=sum(one.cpu_s for one in found.values()))

    def _ask(self, component: Mapping[str, Any], text: str, answer: str) -> Finding:
        part = _part(component["check"], json.dumps(component.get("knobs", {}), sort_keys=True))
        spec = component.get("spec")
        return part(
            text,
            prompt_pb2.CheckSpec(
                check=component["check"],
                answer=component.get("answer", answer),
                spec_json="" if spec is None else json.dumps(spec),
            ),
        )


@lru_cache(maxsize=256)
def _part(name: str, knobs_json: str) -> Any:
    if name == "composite":
        raise UserError("composite: a component's check is 'composite'; accepted: another check")
    return parts.load("verification.check", name, **json.loads(knobs_json))


def _rewards(found: Mapping[str, Finding]) -> tuple[tuple[str, float], ...]:
    named = [(name, one.accuracy) for name, one in found.items()]
    raw = [(f"{name}.{reward}", value) for name, one in found.items() for reward, value in one.rewards]
    return tuple(named + raw)


def _components(spec: prompt_pb2.CheckSpec) -> list[dict[str, Any]]:
    checks = needed("composite", settings("composite", spec, ("checks",)), "checks", list, "a list of checks")
    names = [one.get("name") for one in checks if isinstance(one, dict)]
    if not checks or len(names) < len(checks) or not all(isinstance(name, str) and name for name in names):
        raise UserError("composite: checks is no list of named checks; accepted: [{name, check, ...}, ...]")
    if len(set(names)) < len(names):
        raise UserError(f"composite: names are {names}; accepted: no name twice")
    for one in checks:
        for key in one:
            if key not in _KEYS:
                raise UserError.choice(f"composite: a key of {one['name']!r}", key, _KEYS)
        if not isinstance(one.get("check"), str) or not isinstance(one.get("knobs", {}), dict):
            raise UserError(f"composite: {one['name']!r} has check {one.get('check')!r}; accepted: a check's name")
    return checks
