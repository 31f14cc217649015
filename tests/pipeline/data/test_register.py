"""What is registered: one question for each id, once, and the first that stands under it."""

from __future__ import annotations

import json

import pytest

from pipeline import config, records
from pipeline.data.register import prompts_of, register, registered
from pipeline.errors import UserError
from pipeline.topics import Names
from sluice.v1 import prompt_pb2

NAMES = Names("sluice", "t")


def run_of(folder, *rows, **difficulty):
    """A run whose data set has these rows: (id, question), all of the domain "math"."""
    file = folder / "rows.jsonl"
    file.write_text(
        "".join(json.dumps({"id": name, "prompt": text, "answer": "1", "of": "math"}) + "\n" for name, text in rows)
    )
    sources = [{"kind": "jsonl", "path": str(file), "prompt_id": "id", "domain": "of"}]
    return config.parse({"run": "t", "data": {"held_out": 0, "sources": sources}, "difficulty": difficulty})


def refused(run):
    with pytest.raises(UserError) as caught:
        prompts_of(run)
    return str(caught.value)


def test_one_id_of_two_questions_is_refused_with_both_before_anything_is_registered(log, tmp_path):
    run = run_of(tmp_path, ("x", "one"), ("y", "two"), ("x", "three"))
    with pytest.raises(UserError, match="prompt id 'x' for 'one' and 'three'; accepted: one question for each id"):
        register(log, NAMES, run, print)
    assert list(registered(log, NAMES)) == []


def test_one_id_that_asks_the_same_twice_is_registered_once_and_again_is_nothing_new(log, tmp_path):
    run = run_of(tmp_path, ("x", "one"), ("y", "two"), ("x", "One "))
    assert register(log, NAMES, run, print) == 2
    assert register(log, NAMES, run, print) == 2
    assert sorted(prompt.prompt_id for prompt in registered(log, NAMES)) == ["x", "y"]


def test_a_reserved_id_is_refused(tmp_path):
    said = refused(run_of(tmp_path, ("x", "one"), ("__gate__", "two")))
    assert said == "data.sources have the prompt id '__gate__'; accepted: any other than '' and '__gate__'"


def test_of_a_prompt_that_is_on_the_topic_twice_the_first_is_registered(log):
    writer = log.writer("test")
    with writer.transaction() as transaction:
        for digest in (b"one", b"two"):
            prompt = prompt_pb2.Prompt(prompt_id="x", digest=digest)
            transaction.sends.append(records.encode(NAMES.topic("prompts"), "x", prompt))
    writer.close()
    assert [prompt.digest for prompt in registered(log, NAMES)] == [b"one"]


def test_a_share_or_cost_of_a_domain_that_the_data_set_has_not_is_refused_with_those_it_has(tmp_path):
    rows = ("x", "one"), ("y", "two")
    mixture = {"name": "domain_mixture", "shares": {"math": 3, "maths": 1}}
    said = refused(run_of(tmp_path, *rows, sampler=mixture))
    assert said == "a domain in knob 'shares' of difficulty.sampler 'domain_mixture' is 'maths'; accepted: 'math'"
    assert "'costs'" in refused(run_of(tmp_path, *rows, sampler={"name": "equitable", "costs": {"code": 2}}))
    assert len(prompts_of(run_of(tmp_path, *rows, sampler=mixture | {"shares": {"math": 3}}))) == 2
