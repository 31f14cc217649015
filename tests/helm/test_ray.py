"""The learner's ranks above 0 in pods of a RayCluster: how many, what they are called, are given and may reach."""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest

from pipeline import config, yaml12
from tests.helm.chart import BROKER, NEWEST, OLDEST, ROOT, attempt, environment, name, notes, of, pods, ray_pods, render

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "ray"}
HERE = {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/instance": "r"}


def values(ranks: int = 4, gpus: int = 0, threads: int = 1, **ray: Any) -> dict[str, Any]:
    """A learner with its other ranks on Ray; a worker pod has `gpus`."""
    own, others = ({"limits": {"memory": "8Gi"} | ({"nvidia.com/gpu": n} if n else {})} for n in (min(gpus, 1), gpus))
    worker = {"resources": others} | ray.pop("worker", {})
    return BROKER | {
        "run": {"learning": {"ranks": ranks, "threads": threads}},
        "learning": {"resources": own, "ray": {"enabled": True, "worker": worker} | ray},
    }


def cluster(given: dict[str, Any], release: str = "r") -> dict[str, Any]:
    """The one RayCluster of these values."""
    (one,) = of(render(given, release), "RayCluster")
    return one


def run_of(given: dict[str, Any], which: str = "-run") -> config.Run:
    (found,) = [one for one in of(render(given), "ConfigMap") if name(one).endswith(which)]
    return config.parse(yaml12.read(found["data"]["run.yaml"]))


def by_component(objects: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {labels["app.kubernetes.io/component"]: environment(spec) for _, labels, spec in pods(objects)}


@pytest.mark.parametrize(
    ("ranks", "gpus", "made", "cpus"),
    [
        (2, 0, 1, "3"),
        (8, 0, 7, "3"),
        (8, 1, 7, "3"),
        (2, 4, 1, "12"),
        (5, 4, 1, "12"),
        (6, 4, 2, "12"),
        (9, 4, 2, "12"),
    ],
)
def test_there_are_pods_for_every_rank_but_the_first_with_a_gpu_and_its_threads_each(ranks, gpus, made, cpus):
    spec = cluster(values(ranks, gpus, threads=3))["spec"]
    (workers,) = spec["workerGroupSpecs"]
    assert {workers["replicas"], workers["minReplicas"], workers["maxReplicas"]} == {made}
    assert workers["rayStartParams"]["num-cpus"] == cpus
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", "no rank is on the head"


def test_the_version_of_ray_is_that_of_the_image():
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert cluster(values())["spec"]["rayVersion"] == pinned


@pytest.mark.parametrize("which", ["-run", "-start"])
def test_the_run_file_names_the_clusters_head_and_keeps_what_it_says_besides(which):
    given = values(ranks=3, threads=2)
    learning = run_of(given, which).learning
    # KubeRay's Service of a head: the cluster's name and -head-svc; Ray's own port for clients.
    assert learning.ray == f"ray://{name(cluster(given))}-head-svc:10001"
    assert (learning.ranks, learning.threads) == (3, 2)


def elsewhere(**policy) -> dict:
    """A release whose ranks are on a cluster that is not the chart's."""
    given = values() | {"networkPolicy": policy}
    given["learning"]["ray"]["enabled"] = False
    given["run"]["learning"]["ray"] = "ray://mine:10001"
    return given


def test_the_charts_cluster_and_another_are_refused_together():
    given = values()
    given["run"]["learning"]["ray"] = "ray://mine:10001"
    said = "learning.ray.enabled is true and run.learning.ray is ray://mine:10001; accepted: the chart"
    assert said in attempt(given).stderr


def test_another_cluster_is_reached_where_its_nodes_are_named_and_refused_where_they_are_not():
    said = (
        "run.learning.ray is ray://mine:10001 and networkPolicy.rayPeers is empty; accepted: peers that are its nodes"
    )
    assert said in attempt(elsewhere()).stderr
    assert run_of(elsewhere(enabled=False)).learning.ray == "ray://mine:10001"
    nodes = [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    (policy,) = [
        one["spec"]
        for one in of(render(elsewhere(rayPeers=nodes)), "NetworkPolicy")
        if one["metadata"]["labels"]["app.kubernetes.io/component"] == "learning"
    ]
    assert {"from": nodes} in policy["ingress"] and {"to": nodes} in policy["egress"]


def test_another_ray_pod_makes_the_learner_anew_and_nobody_else():
    """The name of its cluster is in the run file, which is every service's."""

    def checksums(nodes: str) -> dict[str, str]:
        given = values(worker={"nodeSelector": {"pool": nodes}})
        made = [one for kind in ("Deployment", "StatefulSet") for one in of(render(given), kind)]
        return {name(one): one["spec"]["template"]["metadata"]["annotations"]["checksum/run"] for one in made}

    before, after = checksums("a"), checksums("b")
    assert [each.rpartition("-")[2] for each in before if before[each] != after[each]] == ["learning"]


def test_a_worker_of_ray_outlives_the_learner_that_saves_its_last_step():
    objects = render(values())
    (learner,) = of(objects, "StatefulSet")
    (group,) = of(objects, "RayCluster")[0]["spec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    saves = learner["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert pod["terminationGracePeriodSeconds"] == saves + 60
    said = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    assert "ray::follo[w]" in said  # in brackets, or it would find itself


def test_off_it_is_as_if_it_were_not_there():
    given = values(tokenSecret="ray", head={"podLabels": {"a": "b"}})
    given["learning"]["ray"]["enabled"] = False
    objects = render(given)
    assert objects == render(
        {key: one for key, one in given.items() if key != "learning"}
        | {"learning": {"resources": given["learning"]["resources"]}}
    )
    assert of(objects, "RayCluster") == [] and "ray" not in by_component(objects)
    assert run_of(given).learning.ray == ""
    assert [name(one) for one in of(objects, "NetworkPolicy") if name(one).endswith("-ray")] == []


@pytest.mark.parametrize(
    ("release", "called"), [("r", "r-sluice-ray-"), ("sluice", "sluice-ray-"), ("r" * 53, ""), ("9" * 53, "")]
)
def test_its_name_is_one_that_kuberay_takes(release, called):
    made = name(cluster(values(), release))
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", made) and made.startswith(called)
    assert len(made) <= 53 and len(f"{made}-head-svc") <= 63


@pytest.mark.parametrize(
    "change",
    [
        {"image": {"tag": "2.0.0"}},
        {"security": {"runAsUser": 20000}},
        values(threads=2),
        values(tokenSecret="other"),
        values(worker={"shm": {"sizeLimit": "9Gi"}}),
        values(head={"nodeSelector": {"pool": "cpu"}}),
    ],
    ids=["image", "user", "threads", "token", "worker", "head"],
)
def test_pods_that_would_change_are_another_cluster_since_kuberay_leaves_those_that_are_there(change):
    before, after = values(), values() | change
    assert name(cluster(before)) != name(cluster(after))
    assert run_of(after).learning.ray == f"ray://{name(cluster(after))}-head-svc:10001"


@pytest.mark.parametrize("change", [values(ranks=9), {"logLevel": "DEBUG"}], ids=["ranks", "level"])
def test_more_ranks_and_what_is_no_concern_of_its_pods_leave_the_cluster(change):
    assert name(cluster(values())) == name(cluster(values() | change))


def test_a_pod_of_it_gets_no_secret_no_run_file_and_nothing_of_kafka():
    everything = {
        "kafka": BROKER["kafka"] | {"sasl": {"mechanism": "PLAIN", "existingSecret": "user"}},
        "doors": {"tls": {"existingSecret": "doors", "serverName": "sluice"}, "tokens": {"existingSecret": "tokens"}},
        "model": {"tokenSecret": "hub", "cache": {"existingClaim": "models"}},
        "tracing": {"endpoint": "http://collector:4317"},
    }
    for _, template in ray_pods(cluster(values() | everything)):
        spec = template["spec"]
        assert environment(spec) == {"HOME": "/tmp", "RAY_USAGE_STATS_ENABLED": "0"}
        assert [set(volume) for volume in spec["volumes"]] == [{"name", "emptyDir"}] * 2
        assert spec["containers"][0]["image"].startswith("sluice-learning:")


def test_rays_token_is_asked_of_the_learner_and_given_to_it_and_to_nobody_else():
    told = by_component(render(values(tokenSecret="ray")))
    assert {who for who, found in told.items() if found.items() >= TOKEN.items()} == {"learning", "ray"}
    assert {who for who, found in told.items() if "RAY_AUTH_TOKEN" in found} == {"learning", "ray"}
    assert not any(TOKEN.keys() & found.keys() for found in by_component(render(values())).values())


def test_each_probe_asks_from_inside_at_a_port_that_is_open_there():
    # KubeRay's own, where one is left out, ask Ray's dashboard by wget: the image has neither.
    for _, template in ray_pods(cluster(values())):
        (container,) = template["spec"]["containers"]
        ports = {port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            shell, _, asked = container[probe]["exec"]["command"]
            assert shell == "bash" and int(asked.rpartition("/")[2]) in ports
    spec = cluster(values())["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["ray-client-server-port"] == "10001"
    assert spec["workerGroupSpecs"][0]["rayStartParams"]["node-manager-port"] == "6380"


def test_ranks_reach_each_other_at_any_port_and_nothing_else():
    objects = render(values())
    policies = {one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in of(objects, "NetworkPolicy")}
    label = "app.kubernetes.io/component"
    peers = {
        who: [
            {
                "podSelector": {
                    "matchLabels": HERE,
                    "matchExpressions": [{"key": label, "operator": "In", "values": who.split()}],
                }
            }
        ]
        for who in ("ray", "learning ray")
    }
    ray, learning = policies["ray"]["spec"], policies["learning"]["spec"]
    names = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    assert ray["podSelector"] == {"matchLabels": HERE | {label: "ray"}}
    assert ray["ingress"] == [{"from": peers["learning ray"]}]
    assert ray["egress"] == [names, {"to": peers["learning ray"]}]
    assert {"from": peers["ray"]} in learning["ingress"] and {"to": peers["ray"]} in learning["egress"]
    for who in policies.keys() - {"ray", "learning"}:
        assert label not in repr(policies[who]["spec"]["ingress"]) + repr(policies[who]["spec"]["egress"])


@pytest.mark.parametrize("text", ["2024", "on", "1e5"])
def test_what_looks_like_a_number_or_a_truth_stays_text(text):
    group = {"priorityClassName": text, "podLabels": {"a": text}, "nodeSelector": {"a": text}}
    ray = {"tokenSecret": text, "head": group, "worker": group | {"runtimeClassName": text}}
    for _, template in ray_pods(cluster(values(**ray) | {"image": {"pullSecrets": [text]}}, "2024")):
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod"} | template, version, strict=True)


@pytest.mark.parametrize(("enabled", "told"), [(True, "lets only the learner's own pods"), (False, "is off as well")])
def test_who_asks_for_no_token_is_told_what_ray_does(tmp_path, enabled, told):
    policy = {"networkPolicy": {"enabled": enabled}}
    said = notes(values() | policy, tmp_path / "none")
    assert "Ray runs what it is told and asks nobody who he is." in said and told in said
    assert "get rayclusters,pods -l app.kubernetes.io/instance=r,app.kubernetes.io/component=ray" in said
    assert "asks nobody" not in notes(
        values(tokenSecret="ray") | policy | {"doors": {"tokens": {"existingSecret": "d"}}}, tmp_path / "token"
    )
