"""Every part and every recipe, found by walking the folders: there is no list to keep."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch

from pipeline import parts, partspec
from pipeline.knobs import declared
from pipeline.recipe import describe, load_recipe, methods, shipped
from services.learning.build import build
from services.learning.collate import collate
from services.learning.intake import advantage, intake, row_reasons
from tests.services.learning.made import credit, supplied
from tests.services.learning.rollouts import random_groups

ROOMS = [room for room in partspec.rooms() if room != "learning.replay"]
PARTS = [(room, name) for room in ROOMS for name in partspec.names(room)]


def made(room: str, name: str):
    spec = partspec.read(room, name)
    assert all(knob.default is not None or "None" in knob.type for knob in spec.knobs)
    return parts.load(room, name)


@pytest.mark.parametrize(("room", "name"), PARTS)
def test_a_part_says_source_formula_and_odd_case_then_knobs_then_a_worked_number(room, name):
    spec = partspec.read(room, name)
    assert spec.doc.index("Source") > 0 and "Odd case" in spec.doc, "the docstring lacks its source or its odd case"
    assert spec.example.strip(), "the dataclass lacks its worked number"
    assert all(knob.doc for knob in spec.knobs), "a knob is not documented"


@pytest.mark.parametrize(("room", "name"), PARTS)
def test_what_the_source_says_of_a_part_is_what_the_part_is(room, name):
    spec, part = partspec.read(room, name), parts.find(room, name)
    assert dataclasses.is_dataclass(part) and part.__dataclass_params__.frozen
    assert declared(part) == spec.knobs
    assert frozenset(getattr(part, "needs", ())) == spec.needs
    assert getattr(part, "conflicts", None) == spec.constants.get("conflicts")


@pytest.mark.parametrize(("room", "name"), PARTS)
def test_a_part_builds_with_its_defaults_and_equals_itself(room, name):
    assert made(room, name) == made(room, name)


@pytest.mark.parametrize(
    ("room", "name"),
    [pair for pair in PARTS if pair[0] in ("learning.advantage", "learning.reward", "learning.select")],
)
@pytest.mark.parametrize("seed", range(3))
def test_permuting_the_rollouts_of_a_group_permutes_the_result(room, name, seed):
    groups = random_groups(seed, groups=3, size=4)
    turned = [dataclasses.replace(g, members=g.members[::-1]) for g in groups]
    found = []
    for each in (groups, turned):
        batch = collate(each, 3, 6, dtype=torch.float64)
        batch = dataclasses.replace(batch, reward_N=batch.accuracy_N)
        part = made(room, name)
        if room == "learning.advantage":
            found.append(credit(part, batch))
        else:
            found.append(part(batch, batch.reward_N) if room == "learning.reward" else part(supplied(batch, part)))
    order = torch.arange(12).view(3, 4).flip(1).flatten()
    torch.testing.assert_close(found[0], found[1][order])


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("seed", range(2))
def test_every_recipe_takes_ragged_groups(name, seed):
    groups = random_groups(seed, groups=4, size=5)
    ragged = [dataclasses.replace(g, members=g.members[: 2 + i % 3]) for i, g in enumerate(groups)]
    method = build(load_recipe(name))
    ready = intake(method, ragged, lambda found: collate(found, 3, 6, dtype=torch.float64))
    if method.advantage is not None:
        batch = ready.batch
        for part in (method.advantage, *method.modifiers):
            batch = supplied(batch, part)
        assert advantage(method, batch).isfinite().all()
    assert set(ready.reasons) <= set(row_reasons(method))


@pytest.mark.parametrize("name", shipped())
def test_a_recipe_is_named_by_its_file_and_described_from_its_parts(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.off_policy.source
    text = describe(name)
    for _, part in recipe.slots():
        assert part.name in text


def test_the_methods_table_is_complete():
    keys = {"name", "title", "paper", "year", "confidence", "parts", "off_policy"}
    assert [set(row) for row in methods()] == [keys] * len(shipped())


@pytest.mark.parametrize(("room", "name"), PARTS)
def test_a_part_fits_on_one_screen_or_two(room, name):
    assert len(inspect.getsource(inspect.getmodule(parts.find(room, name))).splitlines()) < 150
