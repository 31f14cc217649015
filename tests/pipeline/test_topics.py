"""Rights follow from one table: whatever the code opens on the log is covered by a right of whose code it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.topics import BY_NAME, OPERATOR, SERVICES, Names, rights
from services.difficulty.rebuild import INPUTS
from services.learning.handler import FOLLOWED

ROOT = Path(__file__).parents[2]
NAMES = Names("sluice", "demo")
WORK = {*FOLLOWED, *INPUTS, "requests", "requests-retry", "rollouts", "rollouts-retry"}
"""What a service reads through its stage, which dead-letters what it cannot handle."""
OWN_LOG = {"relearn"}
"""A relearn writes to a log of its own, in a file."""


def topics_of(who: str, operation: str) -> set[str]:
    return {NAMES.short(one.name) for one in rights(who, NAMES) if one[:2] == (operation, "topic")}


def calls(folder: str) -> Iterator[tuple[str, ast.Call]]:
    """(name of what is called, call) of a folder's sources."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                yield getattr(node.func, "attr", getattr(node.func, "id", "")), node


def text(node: ast.expr) -> str:
    """A literal as it stands; of an f-string its fields as {name}."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{" + str(getattr(node.value, "attr", getattr(node.value, "id", "?"))) + "}"
    return str(node.value) if isinstance(node, ast.Constant) else ""


def ids(folder: str) -> set[str]:
    """Groups and transactional ids that a folder's code opens."""
    at = {"own": 0, "Teller": 2, "run_follow": 2, "run_batch": 4, "run_concurrent": 4}
    return {text(call.args[at[name]]) for name, call in calls(folder) if name in at} - {""}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_opens_no_group_and_no_transactional_id_but_its_own(service):
    opened = ids(f"services/{service}") - OWN_LOG
    assert opened and {one.split(".")[0] for one in opened} == {service}


def test_the_shared_code_opens_ids_of_the_operator_and_of_the_service_that_runs_it():
    opened = {one.split(".")[0].rstrip("*") for one in ids("pipeline")}
    assert opened == {OPERATOR, "{service}"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_opens_no_topic_that_it_has_no_right_to(service):
    found = list(calls(f"services/{service}"))
    opened = {text(call.args[0]) for name, call in found if name == "topic"} - {""}
    written = {text(call.args[0]) for name, call in found if name == "Output"} - {""}
    assert opened | written <= topics_of(service, "read") | topics_of(service, "write")
    assert written <= topics_of(service, "write")


def test_a_restart_of_the_learner_may_read_all_that_it_goes_by_and_trim_its_weights_alone():
    assert {"checkpoints", "weights-manifest", "steps", "outcomes", *FOLLOWED} <= topics_of("learning", "read")
    assert topics_of("learning", "delete") == {"weights"}


def test_the_operator_makes_and_reads_every_topic_and_writes_wherever_a_dead_letter_comes_from():
    assert topics_of(OPERATOR, "create") == topics_of(OPERATOR, "read") == set(BY_NAME)
    assert topics_of(OPERATOR, "write") == WORK | {"prompts", "control", "evals"}


def test_rights_of_nobody_are_refused():
    with pytest.raises(UserError, match="the service is 'judge'; accepted: difficulty, generation, learning, operator"):
        rights("judge", NAMES)
