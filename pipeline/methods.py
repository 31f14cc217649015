"""The methods as a page: a table of the recipes and every part they are made of, from the same source as the code.

Recipes are YAML files and parts say of themselves what they are (`pipeline/partspec.py`), so nothing here is a list to
keep. `sluice methods --markdown` prints the page; `docs/methods.md` is that page, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline import partspec
from pipeline.knobs import Knob
from pipeline.partspec import PartSpec
from pipeline.recipe import Part, Recipe, load_recipe, shipped

HEAD = """# Methods

Made by `make methods` from the recipes in `pipeline/recipes/` and the docstrings of the parts. `sluice methods NAME`
prints one method whole: formula, knobs with their values in that recipe, odd cases, worked number.

`confidence` says how the formula was read: the authors' `code`, another `implementation`, the `paper`, its `abstract`,
or a `guess`.
"""
TABLE = ("name", "title", "paper", "year", "confidence", "parts")


def own_parts(recipe: Recipe) -> list[str]:
    """The parts of a recipe that are not what every recipe has when it says nothing, as "room.name", each once.

    >>> own_parts(load_recipe("rloo"))
    ['advantage.group_norm', 'weight.ppo_clip', 'denominator.token_mean']
    """
    plain = {name: each for name, each in dict(recipe).items() if Recipe.model_fields[name].is_required()}
    nameless = Part(name="")
    silent = Recipe.model_construct(**plain | {"advantage": nameless, "denominator": nameless})
    usual = {(room, part.name) for room, part in silent.slots()}
    found = [(room, part.name) for room, part in recipe.slots() if (room, part.name) not in usual]
    return list(dict.fromkeys(f"{room.partition('.')[2]}.{name}" for room, name in found))


def row(recipe: Recipe) -> tuple[str, ...]:
    """A recipe's line of the table; see `TABLE`."""
    parts = ", ".join(own_parts(recipe))
    return recipe.name, recipe.title, recipe.paper, str(recipe.year), recipe.confidence, parts


def markdown() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_recipes(), "", *_parts()])


def _recipes() -> Iterator[str]:
    yield "| " + " | ".join(TABLE) + " |"
    yield "|" + " --- |" * len(TABLE)
    for name in shipped():
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row(load_recipe(name))) + " |"


def _parts() -> Iterator[str]:
    for room in (*partspec.rooms("difficulty"), "generation.guidance", *partspec.rooms("learning")):
        names = partspec.names(room)
        if names:
            yield f"## {room}\n"
        for name in names:
            spec = partspec.read(room, name)
            if spec is not None:
                yield from _part(spec)


def _part(spec: PartSpec) -> Iterator[str]:
    yield f"### {spec.room.partition('.')[2]}.{spec.name}\n"
    yield f"```text\n{spec.doc}\n```\n"
    if spec.knobs:
        yield "\n".join(
            ["| knob | default | accepted | meaning |", "| --- | --- | --- | --- |", *map(_knob, spec.knobs)]
        )
        yield ""
    if spec.example:
        yield f"Worked number:\n\n```text\n{spec.example}\n```\n"


def _knob(knob: Knob) -> str:
    meaning = f"{knob.doc} ({knob.unit})" if knob.unit else knob.doc
    cells = (f"`{knob.name}`", f"`{knob.default}`", knob.accepted, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
