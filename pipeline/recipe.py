"""A recipe: the whole method as data. Every slot names a part and its knobs; nothing is hidden in code.

    name: dapo
    title: Decoupled clip and dynamic sampling policy optimisation
    paper: DAPO, arXiv:2503.14476
    off_policy: {mode: corrected, source: "..."}
    advantage: {name: group_norm, eps: 1e-6}
    weight: [{name: ppo_clip, low: 0.2, high: 0.28}]
    ...

Recipes that ship lie in `pipeline/recipes/`. A run names one, gives a file, or writes the recipe itself, whole or as
changes to another (`base: grpo`). Everything is checked here, before anything heavy is imported: names, knobs and
values against the parts' sources (`pipeline/partspec.py`), and what cannot go together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline import parts, partspec, yaml12
from pipeline.config import Run
from pipeline.errors import UserError

SHIPPED = Path(__file__).parent / "recipes"

Confidence = Literal["code", "implementation", "paper", "abstract", "guess"]
"""How the formula was read: the authors' code, another implementation, the paper, its abstract, or not at all."""

PROXIMAL = {
    "behaviour": "behaviour",
    "recompute": "recomputed proximal",
    "loglinear": "log-linearly interpolated proximal",
    "linear": "linearly interpolated proximal",
}
"""What each choice of `prox` is called."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Part(_Strict):
    """A part by name, with the knobs that differ from its defaults. YAML: a name, or {name: ..., knob: value}."""

    name: str
    knobs: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and "name" in value and "knobs" not in value:
            return {"name": value["name"], "knobs": {key: each for key, each in value.items() if key != "name"}}
        return value

    def __iter__(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """`dict(part)` is the part as a run file writes it: {name: ..., knob: value}."""
        yield from {"name": self.name, **self.knobs}.items()


class OffPolicy(_Strict):
    """What the method may be fed: corrected for staleness, indifferent to it, or on-policy only."""

    mode: Literal["corrected", "any_behaviour", "on_policy_only"]
    source: str


class Recipe(_Strict):
    """A method. Slots in the order in which they act; `select` acts before the advantage."""

    name: str
    title: str
    paper: str
    year: int
    confidence: Confidence
    off_policy: OffPolicy
    estimate: Part = Part(name="beta")
    sampler: Part = Part(name="uniform")
    budget: Part = Part(name="fixed", knobs={"n": 8})
    replay: Part = Part(name="fifo")
    min_group: int = Field(1, ge=1)
    """Fewest members with a reward that a group is trained with."""
    reward: list[Part] = [Part(name="outcome_table")]
    select: list[Part] = [Part(name="all_groups")]
    advantage: Part | None = None
    """Left out only beside an objective that ignores it."""
    modifiers: list[Part] = []
    likelihood: Part = Part(name="token")
    signals: list[Part] = []
    """Knobs of signal parts; which signals are made follows from what parts need."""
    copies: bool = True
    """Whether the learner may keep frozen copies of the model (a reference policy, a teacher) beside the policy."""
    prox: Literal["behaviour", "recompute", "loglinear", "linear"] = "behaviour"
    """Which policy ratios are taken to: the one that sampled, the one at the start of the step, or one between the two
    (in log-prob or in probability) that stands for the policy one version back."""
    weight: list[Part] = []
    denominator: Part | None = None
    """Left out only beside an objective, which has its own."""
    regularizers: list[Part] = []
    objective: Part | None = None
    optimizer: Part = Part(name="adamw")
    controllers: list[Part] = []

    def slots(self) -> Iterator[tuple[str, Part]]:
        """(room, part) of every part, in order."""
        for room, chosen in (
            ("difficulty.estimate", self.estimate),
            ("difficulty.sampler", self.sampler),
            ("difficulty.budget", self.budget),
            ("learning.replay", self.replay),
            ("learning.reward", self.reward),
            ("learning.select", self.select),
            ("learning.advantage", self.advantage),
            ("learning.advantage", self.modifiers),
            ("learning.likelihood", self.likelihood),
            ("learning.signal", self.signals),
            ("learning.weight", self.weight),
            ("learning.objective", self.objective),
            ("learning.denominator", self.denominator),
            ("learning.regularizer", self.regularizers),
            ("learning.optimizer", self.optimizer),
            ("learning.controller", self.controllers),
        ):
            for part in chosen if isinstance(chosen, list) else [chosen] if chosen else []:
                yield room, part


def shipped() -> list[str]:
    """Names of the recipes that ship."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_recipe(what: str | Path | Mapping[str, Any]) -> Recipe:
    """A recipe by shipped name, from a YAML file, or as data. Raises `UserError` for whatever is wrong with it."""
    try:
        found = Recipe.model_validate(_tree(what))
    except ValidationError as error:
        raise UserError(_sentence(error, what)) from error
    for room, part in found.slots():
        spec = partspec.read(room, part.name)
        refusal = spec.refuse(part.knobs) if spec else None
        if refusal:
            raise UserError(f"recipe {found.name!r}: {refusal}")
    _together(found)
    return found


def compose(run: Run) -> Recipe:
    """The recipe of a run, with the run's own overrides, refused where the two cannot go together.

    Difficulty's parts need no torch and are built here, so that knobs which do not fit each other are refused before
    anything starts. A user's own parts are built where they run: here their package may be missing.
    """
    found = load_recipe(run.recipe)
    changes = {
        room: Part.model_validate(chosen)
        for room in ("estimate", "sampler", "budget")
        if (chosen := getattr(run.difficulty, room)) is not None
    }
    if run.learning.lr is not None:
        knobs = found.optimizer.knobs | {"lr": run.learning.lr}
        changes["optimizer"] = Part(name=found.optimizer.name, knobs=knobs)
    found = load_recipe(found.model_copy(update=changes).model_dump())
    for room, part in found.slots():
        if room.startswith("difficulty.") and part.name in partspec.names(room):
            parts.load(room, part.name, **part.knobs)
    _guidance(run)
    if found.off_policy.mode == "on_policy_only" and run.max_lag > 0:
        raise UserError(
            f"max_lag is {run.max_lag} and recipe {found.name!r} is on-policy only ({found.off_policy.source}); "
            "accepted: max_lag 0, or another recipe"
        )
    return found


def refuse_domains(run: Run, known: Collection[str]) -> None:
    """Refuse a part that says something of a domain which the data set, whose domains are `known`, does not have."""
    for room, part in compose(run).slots():
        spec = partspec.read(room, part.name)
        knob = spec.constants.get("by_domain") if spec else None
        for name in (part.knobs.get(knob) or ()) if knob else ():
            if name not in known:
                raise UserError.choice(f"a domain in knob {knob!r} of {room} {part.name!r}", name, map(repr, known))


def _guidance(run: Run) -> None:
    """Refuse guidance that does not exist or whose knobs do not fit."""
    for chosen in run.generation.guidance:
        part = Part.model_validate(chosen) if chosen.get("name") else None
        if part is None:
            raise UserError(f"generation.guidance has {chosen!r}; accepted: {{name: a part, its knobs}}")
        spec = partspec.read("generation.guidance", part.name)
        refusal = spec.refuse(part.knobs) if spec else None
        if refusal:
            raise UserError(f"run file: {refusal}")
        engines = spec.constants.get("engines") if spec else None
        if engines and run.generation.engine not in engines:
            raise UserError.choice(f"generation.engine with guidance {part.name!r}", run.generation.engine, engines)


def methods() -> list[dict[str, Any]]:
    """Every shipped recipe: name, title, paper, year, confidence, parts, off_policy."""
    return [
        {
            "name": recipe.name,
            "title": recipe.title,
            "paper": recipe.paper,
            "year": recipe.year,
            "confidence": recipe.confidence,
            "parts": [f"{room.partition('.')[2]}.{part.name}" for room, part in recipe.slots()],
            "off_policy": recipe.off_policy.mode,
        }
        for recipe in map(load_recipe, shipped())
    ]


def describe(name: str) -> str:
    """A recipe for people: of each part the documentation (formula, odd cases), the knobs and the worked number."""
    recipe = load_recipe(name)
    head = [
        f"{recipe.name}: {recipe.title}",
        f"{recipe.paper} ({recipe.year}); confidence: {recipe.confidence}",
        f"off-policy: {recipe.off_policy.mode} ({recipe.off_policy.source})",
        f"ratios are taken to the {PROXIMAL[recipe.prox]} policy",
    ]
    return "\n".join(head + [_describe_part(room, part) for room, part in recipe.slots()])


def _describe_part(room: str, part: Part) -> str:
    spec = partspec.read(room, part.name)
    if spec is None:
        return f"\n== {room} {part.name}"
    lines = [f"\n== {room} {part.name}", spec.doc]
    for knob in spec.knobs:
        value = part.knobs.get(knob.name, knob.default)
        changed = f" (default {knob.default})" if value != knob.default else ""
        unit = f", {knob.unit}" if knob.unit else ""
        lines.append(f"  {knob.name} = {value}{changed}: {knob.doc or knob.type}{unit}; {knob.accepted}")
    return "\n".join([*lines, spec.example]).rstrip()


def _tree(what: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(what, Mapping):
        if "base" not in what:
            return what
        return {**_tree(what["base"]), **{key: value for key, value in what.items() if key != "base"}}
    name = str(what)
    path = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else SHIPPED / f"{name}.yaml"
    if not path.is_file():
        raise UserError.choice("the recipe", name, [*shipped(), "a YAML file"])
    try:
        tree = yaml12.read(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"recipe file {name!r} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, Mapping):
        raise UserError(f"recipe file {name!r} holds {type(tree).__name__}; accepted: a mapping of slots")
    return _tree(tree)


def _together(recipe: Recipe) -> None:
    """Refuse parts that exclude each other, needs that nothing produces, and a loss without its slots."""
    specs = [(room, part, partspec.read(room, part.name)) for room, part in recipe.slots()]
    signals = {"advantage", "prox_logp"} | set(partspec.names("learning.signal"))
    likelihood = partspec.read("learning.likelihood", recipe.likelihood.name)
    for room, part, spec in specs:
        if spec is None:
            continue
        for other, reason in (spec.constants.get("conflicts") or {}).items():
            if _present(recipe, specs, other):
                raise UserError(
                    f"recipe {recipe.name!r} has {part.name!r} and {other!r}: {reason}; accepted: one of them"
                )
        made = signals | (likelihood.constants.get("provides", frozenset()) if likelihood and _in_loss(room) else set())
        for need in sorted(spec.needs - made):
            raise UserError.choice(f"recipe {recipe.name!r}: what {room} {part.name!r} needs", need, made)
        _copies(recipe, room, part, spec)
    for slot in ("advantage", "denominator"):
        if recipe.objective is None and getattr(recipe, slot) is None:
            raise UserError(
                f"recipe {recipe.name!r} lacks {slot!r}; accepted: a part, or an objective that has its own"
            )
    for room, part, spec in specs:
        scaled = next((other for _, other, its in specs if its and _z_score(other, its)), None)
        if room == "learning.reward" and spec and spec.constants.get("per_prompt") and scaled:
            raise UserError(
                f"recipe {recipe.name!r} has {part.name!r} before {scaled.name!r}: a factor per prompt on the reward "
                "cancels when the group's std divides it; accepted: scale none, or the factor as a modifier"
            )
    if recipe.modifiers and recipe.advantage is None:
        raise UserError(f"recipe {recipe.name!r} has modifiers and no 'advantage' for them to modify; accepted: both")
    _in_place(recipe)


def _z_score(part: Part, spec: partspec.PartSpec) -> bool:
    """Whether a part divides by a spread of the group: it says so as `z_score`, true or the knob and its value."""
    says = spec.constants.get("z_score", False)
    if isinstance(says, bool):
        return says
    knob, _, value = str(says).partition("=")
    defaults = {each.name: each.default for each in spec.knobs}
    return str((defaults | part.knobs).get(knob)) == value


def _present(recipe: Recipe, specs: list[tuple[str, Part, partspec.PartSpec | None]], what: str) -> bool:
    """Whether a recipe has what a conflict names: "slot", "room.part", or "room.part knob=value"."""
    name, _, condition = what.partition(" ")
    if "." not in name:
        return bool(getattr(recipe, name))
    knob, _, value = condition.partition("=")
    for room, part, spec in specs:
        if f"{room.partition('.')[2]}.{part.name}" != name:
            continue
        defaults = {each.name: each.default for each in spec.knobs} if spec else {}
        if not condition or str((defaults | part.knobs).get(knob)) == value:
            return True
    return False


def _copies(recipe: Recipe, room: str, part: Part, spec: partspec.PartSpec) -> None:
    """Refuse a part that needs a copy of the model where the recipe keeps none."""
    for need in sorted(spec.needs if not recipe.copies else ()):
        signal = partspec.read("learning.signal", need) if need in partspec.names("learning.signal") else None
        if signal and "copy" in signal.constants:
            raise UserError(
                f"recipe {recipe.name!r}: {room} {part.name!r} needs {need!r}, which a copy of the model makes, and "
                "copies is false; accepted: copies: true, or another part"
            )


def _in_place(recipe: Recipe) -> None:
    """Refuse a modifier of advantages as the advantage, and an advantage among the modifiers."""
    for slot, other, chosen in (
        ("advantage", "modifiers", [recipe.advantage]),
        ("modifiers", "advantage", recipe.modifiers),
    ):
        for part in chosen:
            spec = partspec.read("learning.advantage", part.name) if part else None
            if spec and bool(spec.constants.get("modifies")) != (slot == "modifiers"):
                kind = "changes an advantage" if slot == "advantage" else "makes one (it lacks modifies = True)"
                raise UserError(f"recipe {recipe.name!r}: {slot} has {part.name!r}, which {kind}; accepted: {other}")


def _in_loss(room: str) -> bool:
    return room in ("learning.regularizer", "learning.objective")


def _sentence(error: ValidationError, what: Any) -> str:
    first = error.errors()[0]
    where = what if isinstance(what, str) else what.get("name", "recipe") if isinstance(what, Mapping) else str(what)
    name = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"recipe {where!r}: {name!r} is no slot; accepted: {', '.join(sorted(Recipe.model_fields))}"
    if first["type"] == "missing":
        return f"recipe {where!r} lacks {name!r}; accepted: a recipe with every slot that has no default, or base: NAME"
    return f"recipe {where!r}: {name} is {first['input']!r}; accepted: {first['msg'].removeprefix('Input should be ')}"
