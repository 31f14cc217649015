"""Topics, and the Job that starts the run: what outlives a release, and what an upgrade may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helm.chart import BROKER, CHART, STRIMZI, job, name, of, render

HOOKS = "pre-install,pre-upgrade,pre-rollback"
CHANGES = {
    "image": {"image": {"tag": "2.0.0"}},
    "registry": {"image": {"registry": "registry.example.com"}},
    "logLevel": {"logLevel": "DEBUG"},
    "tracing": {"tracing": {"endpoint": "http://collector:4317"}},
    "secret": {"doors": {"tokens": {"existingSecret": "tokens"}}},
    "resources": {"start": {"resources": {"limits": {"memory": "3Gi"}}}},
    "place": {"start": {"nodeSelector": {"pool": "small"}}},
    "extraEnv": {"verification": {"extraEnv": [{"name": "A", "value": "b"}]}},
    "security": {"security": {"runAsUser": 20000}},
    "run": {"run": {"max_lag": 7}},
}


@pytest.mark.parametrize("values", [STRIMZI, CHART / "examples/production.yaml"], ids=["small", "production"])
def test_the_topics_outlive_the_release(values):
    topics = of(render(values), "KafkaTopic")
    assert topics
    assert {topic["metadata"].get("annotations", {}).get("helm.sh/resource-policy") for topic in topics} == {"keep"}


def test_a_job_that_would_change_has_another_name_since_its_pod_cannot_change():
    made = [job(STRIMZI)] + [job(STRIMZI | change) for change in CHANGES.values()]
    pods = [repr(one["spec"]["template"]) for one in made]
    assert len(set(pods)) == len(pods)
    assert len({name(one) for one in made}) == len(made)


def test_a_job_that_stays_as_it_is_keeps_its_name_and_is_not_made_again():
    one, other = job(STRIMZI), job(STRIMZI | {"generation": {"replicas": 3}})
    assert one == other
    assert "ttlSecondsAfterFinished" not in one["spec"], "Helm would make it again at every upgrade"


def test_the_hook_goes_by_itself_and_keeps_its_name():
    one = job(BROKER)
    assert one["metadata"]["annotations"]["helm.sh/hook"] == HOOKS
    assert (name(one), one["spec"]["ttlSecondsAfterFinished"]) == ("r-sluice-start", 3600)


def test_a_start_that_fails_says_why_in_what_helm_install_says():
    assert job(BROKER)["metadata"]["annotations"]["helm.sh/hook-output-log-policy"] == "hook-failed"


@pytest.mark.parametrize("manage", ["job", "none"])
def test_the_start_hook_has_an_account_that_is_there_before_it_and_gone_with_it(manage):
    annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/sluice"}
    objects = render(BROKER | {"topics": {"manage": manage}, "serviceAccount": {"annotations": annotations}})
    (start,) = of(objects, "Job")
    account = start["spec"]["template"]["spec"]["serviceAccountName"]
    (own,) = [one for one in of(objects, "ServiceAccount") if name(one) == account]
    told = own["metadata"]["annotations"]
    assert annotations.items() <= told.items() and told["helm.sh/hook"] == HOOKS
    assert int(told["helm.sh/hook-weight"]) < int(start["metadata"]["annotations"]["helm.sh/hook-weight"])
    assert told["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert own["automountServiceAccountToken"] is False


def test_the_start_job_of_the_release_has_the_releases_account():
    objects = render(STRIMZI | {"serviceAccount": {"annotations": {"a": "b"}}})
    (account,) = of(objects, "ServiceAccount")
    assert job(STRIMZI)["spec"]["template"]["spec"]["serviceAccountName"] == name(account) == "r-sluice"


@pytest.mark.parametrize("values", [BROKER, STRIMZI], ids=["hook", "release"])
@pytest.mark.parametrize(("given", "used"), [("", "default"), ("mine", "mine")])
def test_an_account_that_the_chart_does_not_make_is_the_start_jobs_too(values, given, used):
    objects = render(values | {"serviceAccount": {"create": False, "name": given}})
    (start,) = of(objects, "Job")
    assert of(objects, "ServiceAccount") == []
    assert start["spec"]["template"]["spec"]["serviceAccountName"] == used


@pytest.mark.parametrize(("copies", "told"), [(0, []), (3, ["--replicas=3"])])
def test_the_topics_have_as_many_copies_as_are_asked_for_whoever_makes_them(copies, told):
    made = {manage: given(manage, copies) for manage in ("job", "none", "strimzi")}
    assert {manage: flags(values) for manage, values in made.items()} == {"job": told, "none": [], "strimzi": []}
    topics = of(render(made["strimzi"]), "KafkaTopic")
    assert {topic["spec"].get("replicas", 0) for topic in topics} == {copies}


def given(manage: str, copies: int) -> dict[str, Any]:
    return BROKER | {"topics": {"manage": manage, "replicas": copies, "strimzi": {"cluster": "main"}}}


def flags(values: dict[str, Any] | Path) -> list[str]:
    """How many copies the start is told to make."""
    command = job(values)["spec"]["template"]["spec"]["containers"][0]["command"]
    return [one for one in command if one.startswith("--replicas")]


@pytest.mark.parametrize("example", ["several-nodes", "spot-rollout-fleet"])
def test_an_example_with_three_brokers_keeps_three_copies(example):
    assert flags(CHART / f"examples/{example}.yaml") == ["--replicas=3"]
