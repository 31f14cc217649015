"""What a pod is given, what it may reach, and how it is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helm.chart import BROKER, CHART, EXAMPLES, SERVICES, STRIMZI, environment, name, of, pods, render

KEY = {"extraEnv": [{"name": "AWS_ACCESS_KEY_ID", "value": "id"}]}
FILE = {
    "extraVolumes": [{"name": "aws", "secret": {"secretName": "aws"}}],
    "extraVolumeMounts": [{"name": "aws", "mountPath": "/etc/aws", "readOnly": True}],
}
STORE = {"run": {"claims": "s3://bucket/folder"}}
SURGE = {"maxSurge": 1, "maxUnavailable": 0}
IN_PLACE = {"maxSurge": 0, "maxUnavailable": 1}


def component(labels: dict[str, str]) -> str:
    return labels["app.kubernetes.io/component"]


@pytest.mark.parametrize("values", [BROKER, STRIMZI], ids=["hook", "release"])
def test_credentials_that_every_service_has_the_doctor_and_the_start_have_too(values):
    objects = render(values | STORE | dict.fromkeys(SERVICES, KEY | FILE))
    made = {component(labels): spec for _, labels, spec in pods(objects)}
    assert set(made) == {*SERVICES, "start", "doctor"}
    for who, spec in made.items():
        assert environment(spec).get("AWS_ACCESS_KEY_ID") == "id", who
        assert "aws" in {volume["name"] for volume in spec["volumes"]}, who
        assert "/etc/aws" in {mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}, who


@pytest.mark.parametrize("values", [BROKER, STRIMZI], ids=["hook", "release"])
def test_the_hubs_token_is_given_to_those_alone_who_get_models_and_data(values):
    objects = render(values | {"model": {"tokenSecret": "hub"}})
    given = {component(labels) for _, labels, spec in pods(objects) if "HF_TOKEN" in environment(spec)}
    assert given == {"generation", "learning", "start"}


@pytest.mark.parametrize("code", [False, True])
def test_a_door_may_be_asked_from_the_learners_pod_and_from_the_doctors(code):
    objects = render(BROKER | {"verification": {"code": {"enabled": code, "namespace": "programs"}}})
    doors = {}
    for policy in of(objects, "NetworkPolicy"):
        rules = [rule for rule in policy["spec"]["egress"] if {"port": 50051, "protocol": "TCP"} in rule["ports"]]
        doors[component(policy["spec"]["podSelector"]["matchLabels"])] = [rule["to"] for rule in rules]
    peers = doors["doctor"]
    assert len(peers) == 1 and peers[0][0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == "r"
    assert ("namespaceSelector" in peers[0][0]) is code
    none = dict.fromkeys(("generation", "verification", "difficulty", "start"), [])
    assert doors == none | {"doctor": peers, "learning": peers}


def strategies(values: dict | Path) -> dict[str, dict]:
    """How each Deployment replaces its pods; empty where it ends all of them first."""
    made = of(render(values), "Deployment")
    return {name(one).rpartition("-")[2]: one["spec"]["strategy"].get("rollingUpdate", {}) for one in made}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_update_asks_for_no_gpu_more_than_the_service_has(path):
    generation = SURGE if path.stem == "laptop" else IN_PLACE
    assert strategies(path) == {"generation": generation, "verification": SURGE, "difficulty": {}}


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ({"nvidia.com/gpu": 2}, IN_PLACE),
        ({"amd.com/gpu": "1"}, IN_PLACE),
        ({"nvidia.com/mig-1g.5gb": 1}, IN_PLACE),
        ({"cpu": "4", "ephemeral-storage": "1Gi"}, SURGE),
    ],
)
def test_whatever_device_a_limit_counts_is_not_asked_for_twice(limits, wanted):
    resources = {"requests": {}, "limits": {"memory": "8Gi"} | limits}
    assert strategies(BROKER | {"generation": {"resources": resources}})["generation"] == wanted


def test_the_doctor_of_helm_test_waits_for_the_doors():
    (doctor,) = of(render(CHART / "examples/laptop.yaml"), "Pod")
    command = doctor["spec"]["containers"][0]["command"]
    assert "--wait=300" in command and sum(one.startswith("--door=") for one in command) == len(SERVICES)


def cpus(**resources: dict[str, Any]) -> dict[str, Any]:
    """Where verification has its SLUICE_CPUS from; empty where it is not told."""
    given = BROKER | {"verification": {"resources": {"requests": {}, "limits": {"memory": "2Gi"}} | resources}}
    (spec,) = [spec for _, labels, spec in pods(render(given)) if component(labels) == "verification"]
    found = [one["valueFrom"] for one in spec["containers"][0]["env"] if one["name"] == "SLUICE_CPUS"]
    return found[0]["resourceFieldRef"] if found else {}


def test_there_are_as_many_checkers_as_the_pod_has_cpus_and_not_the_node():
    # On 192 CPUs they would be 193 processes, and a pod of 2Gi out of memory.
    assert cpus(requests={"cpu": "1500m"}) == {"resource": "requests.cpu", "divisor": "1"}
    both = {"requests": {"cpu": 1}, "limits": {"cpu": 2, "memory": "2Gi"}}
    assert cpus(**both) == {"resource": "limits.cpu", "divisor": "1"}
    assert cpus(requests={"cpu": None}) == {}  # of a request that is taken back Kubernetes would say 0
    told = {component(labels) for _, labels, spec in pods(render(BROKER)) if "SLUICE_CPUS" in environment(spec)}
    assert told == {"verification"}


@pytest.mark.parametrize("values", [BROKER, STRIMZI], ids=["hook", "release"])
def test_the_start_and_the_doctor_may_be_placed_where_there_is_no_other_node(values):
    place = {
        "nodeSelector": {"pool": "small"},
        "tolerations": [{"key": "pool", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
    }
    placed = {component(labels): spec for _, labels, spec in pods(render(values | {"start": place}))}
    for who, spec in placed.items():
        wanted = place if who in ("start", "doctor") else {}
        assert {field: spec[field] for field in place if field in spec} == wanted, who
