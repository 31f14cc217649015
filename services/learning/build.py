"""A recipe becomes a method: its parts, built, and wired by what they need."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.parts import load
from pipeline.recipe import Part, Recipe
from services.learning.estimator import Estimator


@dataclass(frozen=True)
class Method:
    """The built parts of a recipe, in the order in which a step runs them."""

    recipe: Recipe
    reward: tuple[Any, ...]
    select: tuple[Any, ...]
    advantage: Any | None
    """None beside an objective that ignores it."""
    modifiers: tuple[Any, ...]
    likelihood: Any
    signals: dict[str, Any]
    """Signal parts that some part needs, by signal; they run before the advantage."""
    estimator: Estimator
    forward: frozenset[str]
    """What the forward pass of the gradient must bring besides log-probs."""
    scored: frozenset[str]
    """What passes without a gradient must bring besides log-probs."""
    prox_early: bool
    """Whether some part needs the proximal log-probs before the pass of the gradient."""
    step_late: bool
    """Whether whole-step log-probs are needed by weights only, so that one pass over the whole step may give them."""
    optimizer: Any
    controllers: dict[str, Any]

    @property
    def copies(self) -> dict[str, Any]:
        """Signal parts that score with a copy of the model of their own, by the copy's name."""
        return {part.copy: part for part in self.signals.values() if hasattr(part, "copy")}

    @property
    def sticky(self) -> bool:
        """Whether a prompt must always come to the same rank, because a controller remembers something of it."""
        return any(getattr(part, "sticky", False) for part in self.controllers.values())

    def opened(self) -> tuple[Estimator, dict[str, Any]]:
        """The estimator and everything that keeps state between steps, fresh.

        A controller part is opened with `open()`, a weight or regularizer part that keeps state with `open(optimizer)`:
        the estimator then holds the running one.
        """
        running = {name: part.open() for name, part in self.controllers.items()}
        weights = list(self.estimator.weights)
        for place, named in enumerate(self.recipe.weight):
            if hasattr(weights[place], "open"):
                weights[place] = running[named.name] = weights[place].open(self.optimizer)
        terms = list(self.estimator.regularizers)
        for place, (name, part) in enumerate(terms):
            if hasattr(part, "open"):
                running[name] = part.open(self.optimizer)
                terms[place] = name, running[name]
        opened = dataclasses.replace(self.estimator, weights=tuple(weights), regularizers=tuple(terms))
        return opened, running

    @property
    def heads(self) -> dict[str, Any]:
        """Signal parts with a trainable head on the last hidden states, by signal."""
        return {name: part for name, part in self.signals.items() if hasattr(part, "head")}


def build(recipe: Recipe) -> Method:
    """Build every part of a recipe. Raises `UserError` for a part, knob or value that does not exist."""

    def made(room: str, parts: list[Part]) -> tuple[Any, ...]:
        return tuple(_make(room, part) for part in parts)

    estimator = Estimator(
        weights=made("weight", recipe.weight),
        denominator=_make("denominator", recipe.denominator) if recipe.denominator else None,
        regularizers=tuple((part.name, _make("regularizer", part)) for part in recipe.regularizers),
        objective=_make("objective", recipe.objective) if recipe.objective else None,
    )
    reward, select = made("reward", recipe.reward), made("select", recipe.select)
    advantage = _make("advantage", recipe.advantage) if recipe.advantage else None
    modifiers = made("advantage", recipe.modifiers)
    likelihood = _make("likelihood", recipe.likelihood)
    with_gradient = [part for _, part in estimator.regularizers] + [estimator.objective]
    early = _needs([*reward, *select, advantage, *modifiers])
    wanted = early | _needs(estimator.weights) | (_needs(with_gradient) - likelihood.provides)
    if estimator.shrinks:
        wanted |= {"step_logp"}
    signals = _signals(recipe, wanted)
    heads = {name for name, part in signals.items() if hasattr(part, "head")}
    return Method(
        recipe=recipe,
        reward=reward,
        select=select,
        advantage=advantage,
        modifiers=modifiers,
        likelihood=likelihood,
        signals=signals,
        estimator=estimator,
        forward=frozenset(_needs(with_gradient) & (likelihood.provides | heads)),
        scored=frozenset({read for part in signals.values() for read in getattr(part, "reads", ())}),
        prox_early="prox_logp" in early and recipe.prox != "behaviour",
        step_late="step_logp" not in early,
        optimizer=_make("optimizer", recipe.optimizer),
        controllers={part.name: _make("controller", part) for part in recipe.controllers},
    )


def _make(room: str, part: Part) -> Any:
    return load(f"learning.{room}", part.name, **part.knobs)


def _needs(parts: Iterable[Any]) -> set[str]:
    return {need for part in parts for need in getattr(part, "needs", ())}


def _signals(recipe: Recipe, wanted: set[str]) -> dict[str, Any]:
    told = {part.name: part for part in recipe.signals}
    made = sorted(wanted - {"advantage", "prox_logp"})
    return {name: _make("signal", told.get(name, Part(name=name))) for name in made}
