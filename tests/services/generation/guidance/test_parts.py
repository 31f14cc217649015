"""Guidance parts: what each says of itself, and its numbers by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import config, parts, partspec, recipe
from pipeline.errors import UserError
from pipeline.knobs import declared
from services.generation import guides
from services.generation.guidance import Try
from services.generation.guidance.arrol import Arrol
from services.generation.guidance.hapo_temperature import HapoTemperature
from sluice.v1 import prompt_pb2

ROOM = "generation.guidance"
STUCK = prompt_pb2.Belief(mean=0.0, effective_n=16, as_of_step=60)


@pytest.fixture
def file(tmp_path: Path):
    """Writes rows as JSON Lines; returns the path."""

    def write(*rows: dict[str, object]) -> str:
        path = tmp_path / f"rows-{len(list(tmp_path.iterdir()))}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
        return str(path)

    return write


def request(prompt_id: str = "p", text: str = "add 2 and 3", **belief) -> prompt_pb2.RolloutRequest:
    found = prompt_pb2.RolloutRequest(request_id="r", attempt=1, prompt_id=prompt_id, belief=STUCK)
    for name, value in belief.items():
        setattr(found.belief, name, value)
    found.messages.add(role="user").parts.add(text=text)
    return found


def guide(part, asked: prompt_pb2.RolloutRequest) -> list[prompt_pb2.Guidance]:
    return part.guide(asked, asked.belief)


@pytest.mark.parametrize("name", partspec.names(ROOM))
def test_a_part_says_source_formula_and_odd_case_then_knobs_then_a_worked_number(name):
    spec, part = partspec.read(ROOM, name), parts.find(ROOM, name)
    assert spec.doc.index("Source") > 0 and "Odd case" in spec.doc and spec.example.strip()
    assert all(knob.doc for knob in spec.knobs)
    assert dataclasses.is_dataclass(part) and part.__dataclass_params__.frozen
    assert declared(part) == spec.knobs


def test_a_hint_rises_by_a_level_with_every_eight_rollouts_of_failure(file):
    part = parts.load(ROOM, "tiered_hint", path=file({"prompt_id": "p", "hints": ["a", "b", "c"]}))
    levels = {n: [one.text for one in guide(part, request(effective_n=n))] for n in (7, 8, 15, 16, 40)}
    assert levels == {7: [], 8: ["a"], 15: ["a"], 16: ["a", "b"], 40: ["a", "b", "c"]}
    found = guide(part, request(effective_n=16))
    assert [(one.kind, one.level, one.source_id) for one in found] == [("hint", 1, "hint-1"), ("hint", 2, "hint-2")]


def test_a_prompt_that_is_solved_unknown_or_tried_in_the_first_steps_gets_no_hint(file):
    path = file({"prompt_id": "p", "hints": ["a", "b"]})
    part = parts.load(ROOM, "tiered_hint", path=path, cumulative=False)
    assert [one.text for one in guide(part, request())] == ["b"]
    for asked in (request(mean=0.2), request("other"), request(as_of_step=49)):
        assert guide(part, asked) == []
    assert part.guide(request(), prompt_pb2.Belief()) == []


def test_the_nearest_solved_examples_seed_a_prompt_but_never_its_own_wording(file):
    rows = [
        {"prompt_id": "q", "prompt": "Add 5 and 2", "solution": "7"},
        {"prompt_id": "p", "prompt": "add 2 and 3", "solution": "5", "family_id": "f"},
        {"prompt_id": "w", "prompt": "add 3 and 2", "solution": "5", "family_id": "f"},
        {"prompt_id": "s", "prompt": "spell cat", "solution": "t"},
        {"prompt_id": "t", "prompt": "add them", "solution": "9"},
    ]
    part = parts.load(ROOM, "seed_example", path=file(*rows))
    found = guide(part, request())
    assert [(one.kind, one.source_id) for one in found] == [("exemplar", "q"), ("exemplar", "t")]
    assert found[0].text == "Example:\nAdd 5 and 2\n7"
    short = parts.load(ROOM, "seed_example", path=file(*rows), k=1, longest=10)
    assert [one.text for one in guide(short, request())] == ["Example:\nA"]


def test_a_solutions_beginning_is_cut_at_a_step_and_never_holds_the_last(file):
    part = parts.load(ROOM, "partial_solution", path=file({"prompt_id": "p", "solution": "1\n2\n3\n4\nanswer\n"}))
    assert [part.beginning("1\n2\n3\n4\n5", eta) for eta in (0.2, 0.45, 0.6)] == ["1\n", "1\n2\n3\n", "1\n2\n3\n"]
    assert [part.beginning(text, 0.6) for text in ("1\n2", "1")] == ["1\n", ""]
    (found,) = guide(part, request())
    assert found.kind == "prefix" and "1\n2\n3\n4\n".startswith(found.text) and "answer" not in found.text
    assert guide(part, request()) == [found]


def test_pruning_keeps_the_chances_of_the_notes_and_half_of_them_on_average():
    part, quality_N = Arrol(), np.array([0.9, 0.8, 0.7, 0.2])
    chance_N = part.survival(quality_N)
    np.testing.assert_allclose(chance_N, [0.417582, 0.450549, 0.483516, 0.648352], atol=1e-6)
    assert chance_N.sum() == pytest.approx(2)
    np.testing.assert_allclose(part.survival(np.zeros(4)), [0.5] * 4)


def tries(logprobs: list[float], draws: list[float]) -> list[Try]:
    return [Try(i, [5, 6], [value, value], draw) for i, (value, draw) in enumerate(zip(logprobs, draws, strict=True))]


def test_quality_is_that_of_the_bin_or_of_the_rank_in_the_group():
    part = Arrol(bins=((-2.0, 30, 100), (-1.0, 60, 100), (0.0, 90, 100)))
    found = part.quality(tries([-3.0, -1.5, -0.5], [0.5] * 3), 0.5)
    np.testing.assert_allclose(found, [0.303922, 0.598039, 0.892157], atol=1e-6)
    # z = -1 and 1 about a belief of 0.5: sigmoid(-1) and sigmoid(1).
    np.testing.assert_allclose(Arrol().quality(tries([-3.0, -1.0], [0.5] * 2), 0.5), [0.268941, 0.731059], atol=1e-6)
    np.testing.assert_allclose(Arrol().quality(tries([-2.0, -2.0], [0.5] * 2), 0.2), [0.2, 0.2])


def test_a_try_goes_on_when_its_draw_is_below_its_chance_and_two_are_always_left():
    part = Arrol(slope=0.0)  # every chance is keep_rate
    some = tries([-1.0] * 4, [0.4, 0.6, 0.1, 0.9])
    assert part.keep(some, 0, STUCK) == {0, 2}
    none = tries([-1.0] * 4, [0.9] * 4)
    assert (
        part.keep(none, 0, STUCK) == {0, 1} and part.keep(none, 1, STUCK) == {0} and part.keep(none, 2, STUCK) == set()
    )


def test_temperatures_follow_entropy_as_in_the_notes():
    entropy_N = np.array([0.01, 0.05, 0.2, 0.8, 1.6])
    exact = HapoTemperature(levels=0)
    stats = exact.measured(entropy_N)
    assert (stats.pivot, stats.std) == (pytest.approx(-0.223144, abs=1e-6), pytest.approx(2.420400, abs=1e-6))
    found_N = exact.temperatures(entropy_N, np.ones(5), stats)
    np.testing.assert_allclose(found_N, [0.95, 0.968364, 0.984182, 1.0, 1.05], atol=1e-6)
    # To fifths: h = -1, -.6, -.4, 0, 1.
    found_N = HapoTemperature().temperatures(entropy_N, np.full(5, 2.0), stats)
    np.testing.assert_allclose(found_N, [1.9, 1.94, 1.96, 2.0, 2.1])
    # Beyond what was measured h stays at its bounds; where all were equal nothing changes.
    np.testing.assert_allclose(exact.temperatures(np.array([0.0, 9.0]), np.ones(2), stats), [0.95, 1.05])
    same = exact.measured(np.full(4, 0.3))
    np.testing.assert_allclose(exact.temperatures(entropy_N, np.ones(5), same), np.ones(5))


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ([{"name": "arol"}], "arrol"),
        ([{"name": "arrol", "lookat": 3}], "look_at"),
        ([{"name": "arrol", "keep_rate": 2}], "is 2; accepted: float > 0 and <= 1"),
        ([{"name": "tiered_hint"}], "needs the knob 'path'"),
        ([{"look_at": 3}], "accepted: {name: a part, its knobs}"),
    ],
)
def test_wrong_guidance_is_refused_with_the_run_file(chosen, said):
    with pytest.raises(UserError, match=said.replace("{", r"\{").replace("(", r"\(")):
        recipe.compose(config.parse({"generation": {"guidance": chosen}}))


def test_a_part_that_an_engine_cannot_serve_is_refused_with_the_run_file():
    asked = config.parse({"generation": {"engine": "vllm", "guidance": [{"name": "hapo_temperature"}]}})
    with pytest.raises(UserError, match="with guidance 'hapo_temperature' is 'vllm'; accepted: transformers"):
        recipe.compose(asked)


def test_a_file_that_is_missing_or_lacks_a_field_is_refused_when_the_part_is_built(file):
    with pytest.raises(UserError, match="'none.jsonl', which does not exist"):
        guides.build([{"name": "tiered_hint", "path": "none.jsonl"}])
    with pytest.raises(UserError, match="line 2 of .* lacks 'hints'"):
        guides.build([{"name": "tiered_hint", "path": file({"prompt_id": "p", "hints": []}, {"prompt_id": "q"})}])


def test_parts_are_sorted_by_what_they_do_and_two_that_prune_are_refused(file):
    path = file({"prompt_id": "p", "hints": ["a"]})
    found = guides.build([{"name": "tiered_hint", "path": path}, {"name": "arrol"}, {"name": "hapo_temperature"}])
    assert len(found.guides) == 1 and found.look_at == 512 and isinstance(found.heats, HapoTemperature)
    assert [one.text for one in found.guided(request()).guidance] == ["a"]
    plain = request("other")
    assert found.guided(plain) is plain and guides.build([]) == guides.Guidance()
    with pytest.raises(UserError, match="'Arrol' and 'Arrol', which both prune"):
        guides.build([{"name": "arrol"}, {"name": "arrol"}])
