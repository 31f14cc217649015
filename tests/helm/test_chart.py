"""The chart, rendered by the real Helm: every example and thirty random value sets, each object checked."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline import config, yaml12
from pipeline.topics import TOPICS

sys.path.insert(0, str(Path(__file__).parent))
from chart import (
    CHART,
    EXAMPLES,
    NEWEST,
    OLDEST,
    PORTS,
    ROOT,
    SERVICES,
    attempt,
    chooses,
    helm,
    home,
    name,
    of,
    pods,
    ray_pods,
    render,
    selects,
)
from random_values import random_values

RANDOM = 30
RELEASES = ("r", "2024", "rl-sluice", "a-long-name-of-a-release-that-is-still-allowed")
# One megabyte of definitions would be read again for every object.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "schemas").glob("*.json")}


SETS: dict[str, Any] = {path.stem: path for path in EXAMPLES} | {f"random-{n}": random_values(n) for n in range(RANDOM)}


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[dict[str, Any]]]:
    """Every set, rendered once."""
    releases = dict(zip(SETS, itertools.cycle(RELEASES), strict=False))
    return {which: render(values, releases[which]) for which, values in SETS.items()}


def values_of(which: str) -> dict[str, Any]:
    given = SETS[which]
    given = yaml.safe_load(given.read_text()) if isinstance(given, Path) else given
    return merged(yaml.safe_load((CHART / "values.yaml").read_text()), given)


def merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_helm_lint_finds_nothing(path):
    done = helm("lint", "--strict", str(CHART), "-f", str(path), "--kube-version", NEWEST)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("which", SETS)
def test_every_object_is_valid_on_the_oldest_and_the_newest_kubernetes(rendered, which):
    objects = rendered[which]
    clusters = of(objects, "RayCluster")
    for one in objects:
        if one["kind"] in SCHEMAS:
            jsonschema.Draft7Validator(SCHEMAS[one["kind"]]).validate(one)
    made = [{"apiVersion": "v1", "kind": "Pod"} | pod for one in clusters for _, pod in ray_pods(one)]
    for one in made + [one for one in objects if one["kind"] not in SCHEMAS]:
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("which", SETS)
def test_what_points_at_something_points_at_it(rendered, which):
    objects = rendered[which]
    made = pods(objects)
    held = {(one["kind"], home(one), name(one)) for one in objects}
    for service in of(objects, "Service"):
        chosen = [spec for _, labels, spec in made if selects(service["spec"]["selector"], labels)]
        assert len(chosen) == 1, name(service)
        there = {port["name"] for container in chosen[0]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= there
    for one in of(objects, "PodDisruptionBudget", "PodMonitor"):
        chosen_labels = [labels for _, labels, _ in made if chooses(one["spec"]["selector"], labels)]
        assert chosen_labels and "ray" not in {labels["app.kubernetes.io/component"] for labels in chosen_labels}
    for one in of(objects, "Deployment", "StatefulSet"):
        assert selects(one["spec"]["selector"]["matchLabels"], one["spec"]["template"]["metadata"]["labels"])
    for one in of(objects, "StatefulSet"):
        assert ("Service", home(one), one["spec"]["serviceName"]) in held
    for one in of(objects, "ScaledObject", "HorizontalPodAutoscaler"):
        target = one["spec"]["scaleTargetRef"]
        assert (target["kind"], home(one), target["name"]) in held
    for one in of(objects, "ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            if "authenticationRef" in trigger:
                assert ("TriggerAuthentication", home(one), trigger["authenticationRef"]["name"]) in held


@pytest.mark.parametrize("which", SETS)
def test_a_pod_mounts_what_exists_and_hangs_on_nothing(rendered, which):
    objects = rendered[which]
    held = {(one["kind"], name(one)) for one in objects}
    values = values_of(which)
    claims = {
        name(claim) for one in of(objects, "StatefulSet") for claim in one["spec"].get("volumeClaimTemplates", [])
    }
    secrets = {
        values["kafka"]["tls"]["existingSecret"],
        values["kafka"]["sasl"]["existingSecret"],
        values["doors"]["tls"]["existingSecret"],
        values["doors"]["tokens"]["existingSecret"],
        values["model"]["tokenSecret"],
        values["learning"]["ray"]["tokenSecret"],
    }
    for who, _, spec in pods(objects):
        volumes = {volume["name"] for volume in spec["volumes"]}
        assert len(volumes) == len(spec["volumes"])
        for container in spec["containers"] + spec.get("initContainers", []):
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(set(paths)) == len(paths)
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= volumes | (claims if "learning" in who else set()), who
            variables = [variable["name"] for variable in container["env"]]
            assert len(set(variables)) == len(variables)
            for variable in container["env"]:
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                assert reference is None or reference["name"] in secrets
                if variable["name"].endswith("_FILE") or variable["name"].startswith("SLUICE_TLS_C"):
                    assert any(variable["value"].startswith(path + "/") for path in paths), variable
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in held
            assert "secret" not in volume or volume["secret"]["secretName"] in secrets
        account = spec.get("serviceAccountName", "default")
        assert account == "default" or ("ServiceAccount", account) in held


@pytest.mark.parametrize("which", SETS)
def test_every_pod_is_restricted_and_limited(rendered, which):
    code = values_of(which)["verification"]["code"]["enabled"]
    for who, _, spec in pods(rendered[which]):
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"] + spec.get("initContainers", []):
            held = container["securityContext"]
            jails = code and container["name"] == "verification"
            assert held.get("procMount", "Default") == ("Unmasked" if jails else "Default")
            assert held.get("seccompProfile", {"type": "RuntimeDefault"})["type"] == (
                "Localhost" if jails else "RuntimeDefault"
            )
            assert held["readOnlyRootFilesystem"] and held["allowPrivilegeEscalation"] is False, who
            assert held["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"], who
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", who
            image, _, tag = container["image"].rpartition(":")
            assert image and tag and tag != "latest"


@pytest.mark.parametrize("which", SETS)
def test_probes_ask_the_plain_port_and_grace_is_longer_than_the_stop(rendered, which):
    services = of(rendered[which], "Deployment", "StatefulSet")
    assert len(services) == len(SERVICES)
    for one in services:
        spec = one["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert {port["name"]: port["containerPort"] for port in container["ports"]} == PORTS
        asked = [container[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")]
        assert {probe["port"] for probe in asked} == {PORTS["probe"]}
        assert [probe.get("service", "") for probe in asked] == ["started", "", "live"]
        assert f"--probe-port={PORTS['probe']}" in container["command"]
        assert f"--metrics-port={PORTS['metrics']}" in container["command"]
        assert f"--address=0.0.0.0:{PORTS['grpc']}" in container["command"]
        sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        assert spec["terminationGracePeriodSeconds"] >= sleep + 10


@pytest.mark.parametrize("which", SETS)
def test_each_service_has_exactly_one_scaler(rendered, which):
    objects = rendered[which]
    for one in of(objects, "Deployment", "StatefulSet"):
        scalers = [
            scaler
            for scaler in of(objects, "ScaledObject", "HorizontalPodAutoscaler")
            if scaler["spec"]["scaleTargetRef"]["name"] == name(one) and home(scaler) == home(one)
        ]
        assert len(scalers) + ("replicas" in one["spec"]) == 1, name(one)


@pytest.mark.parametrize("which", SETS)
def test_a_network_policy_names_every_port_in_use(rendered, which):
    objects = rendered[which]
    values = values_of(which)
    policies = of(objects, "NetworkPolicy")
    if not values["networkPolicy"]["enabled"]:
        assert policies == []
        return
    brokers = {int(server.rpartition(":")[2]) for server in values["kafka"]["bootstrapServers"].split(",")}
    for who, labels, spec in pods(objects):
        (policy,) = [one for one in policies if selects(one["spec"]["podSelector"]["matchLabels"], labels)]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        if labels["app.kubernetes.io/component"] == "ray":
            continue  # test_ray.py: any port, of its own kind
        open_in = {port["port"] for rule in policy["spec"]["ingress"] for port in rule.get("ports", [])}
        assert open_in == {port["name"] for container in spec["containers"] for port in container.get("ports", [])}, who
        open_out = {port["port"] for rule in policy["spec"]["egress"] for port in rule.get("ports", [])}
        assert {53} | brokers <= open_out
        endpoint = values["tracing"]["endpoint"]
        traced = {int(endpoint.rpartition(":")[2])} if endpoint else set()
        told = {variable["name"] for container in spec["containers"] for variable in container["env"]}
        assert ("OTEL_EXPORTER_OTLP_ENDPOINT" in told) == bool(traced), who
        if labels["app.kubernetes.io/component"] in SERVICES:
            assert traced <= open_out, who
        run = values["run"]
        stored = {443} if "://" in run.get("claims", "") + run.get("weights", {}).get("store", "") else set()
        assert stored <= open_out, who
        if "verification" in who:
            assert open_out == {53} | brokers | traced | stored


@pytest.mark.parametrize("which", [path.stem for path in EXAMPLES])
def test_the_run_file_in_the_config_map_is_one_that_sluice_reads(rendered, which):
    (found,) = [one for one in of(rendered[which], "ConfigMap") if name(one).endswith("-run")]
    run = config.parse(yaml12.read(found["data"]["run.yaml"]))
    assert run.log == "kafka://" + values_of(which)["kafka"]["bootstrapServers"]


def test_a_changed_run_file_changes_the_pods_and_nothing_else_does():
    def sums(values: dict[str, Any]) -> set[str]:
        made = of(render(values), "Deployment", "StatefulSet")
        return {one["spec"]["template"]["metadata"]["annotations"]["checksum/run"] for one in made}

    first = {"kafka": {"bootstrapServers": "k:9092"}}
    assert sums(first) == sums(first | {"logLevel": "DEBUG"})
    assert sums(first) != sums(first | {"run": {"run": "demo", "max_lag": 3}})


def test_strimzi_gets_every_topic(rendered):
    made = {name(one): one["spec"] for one in of(rendered["production"], "KafkaTopic")}
    assert {full.removeprefix("sluice.prod."): spec["partitions"] for full, spec in made.items()} == {
        topic.name: topic.partitions for topic in TOPICS
    }


def test_two_releases_live_in_one_namespace():
    values = {"kafka": {"bootstrapServers": "k:9092"}}
    one, two = ({(o["kind"], name(o)) for o in render(values, release)} for release in ("a", "b"))
    assert not one & two
    long = {name(o) for o in render(values, "r" * 53)}
    assert max(map(len, long)) <= 63


WRONG = [
    ({"tracing": {"endpoint": "collector"}}, "endpoint"),
    ({"tracing": {"share": 2}}, "share"),
    ({"replica": 2}, "replica"),
    ({"generation": {"replicas": "two"}}, "replicas"),
    ({"generation": {"autoscaling": {"enable": True}}}, "enable"),
    ({"learning": {"replicas": 2}}, "replicas"),
    ({"learning": {"autoscaling": {"enabled": True}}}, "enabled"),
    ({"run": {"max_lagg": 2}}, "max_lagg"),
    ({"run": {"max_lag": -1}}, "max_lag"),
    ({"run": {"generation": {"engine": "tgi"}}}, "engine"),
    ({"run": {"log": "embedded"}}, "log"),
    ({"image": {"tag": "latest"}}, "tag"),
    ({"kafka": {"bootstrapServers": "kafka"}}, "bootstrapServers"),
    ({"kafka": {"bootstrapServers": ""}}, "bootstrapServers"),
    ({"kafka": {"bootstrapServers": "k:1", "sasl": {"mechanism": "GSSAPI"}}}, "mechanism"),
    ({"generation": {"resources": {"limit": {"cpu": "1"}}}}, "limit"),
    ({"verification": {"autoscaling": {"kind": "vpa"}}}, "kind"),
]


@pytest.mark.parametrize(("values", "named"), WRONG, ids=lambda one: one if isinstance(one, str) else "")
def test_a_wrong_value_is_refused_by_name(values, named):
    done = attempt({"kafka": {"bootstrapServers": "k:9092"}} | values)
    assert done.returncode != 0
    assert named in done.stderr


def test_the_generated_files_are_what_the_code_makes():
    sys.path.insert(0, str(ROOT / "helm"))
    import write_chart

    made = write_chart.files()
    assert {file.name: file.read_text() for file in made} == {file.name: text for file, text in made.items()}


@pytest.mark.parametrize(("example", "service"), [("laptop", "verification"), ("spot-rollout-fleet", "learning")])
def test_the_start_job_runs_in_an_image_that_can_read_the_prompts(example, service):
    jobs = [job for job in of(render(CHART / f"examples/{example}.yaml"), "Job") if name(job).endswith("start")]
    images = [container["image"] for job in jobs for container in job["spec"]["template"]["spec"]["containers"]]
    assert len(images) == 1 and f"sluice-{service}:" in images[0]
