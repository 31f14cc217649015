"""Names and labels: of two releases never the same, and always text, whatever they look like."""

from __future__ import annotations

import json
import re

import kubernetes_validate
import pytest

from tests.helm.chart import BROKER, NEWEST, OLDEST, STRIMZI, attempt, name, of, pods, render

LONG = "reinforcement-learning-of-mathematics-on-the"
PAIRS = [("rl", "rl-sluice"), (f"{LONG}-one", f"{LONG}-two"), ("a", "b"), ("2024", "sluice-2024"), ("a.b", "a-b")]
DASHBOARDS = {"monitoring": {"dashboards": {"enabled": True}}}
LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda release: release[-12:])
@pytest.mark.parametrize("values", [BROKER, STRIMZI], ids=["hook", "strimzi"])
def test_two_releases_of_one_namespace_share_no_name(values, one, other):
    made = [
        {(o["kind"], name(o)) for o in render(values, release) if o["kind"] != "KafkaTopic"} for release in (one, other)
    ]
    assert not made[0] & made[1]


@pytest.mark.parametrize("release", sorted({release for pair in PAIRS for release in pair} | {"r" * 53, "9" * 53}))
def test_every_name_is_one_that_kubernetes_takes(release):
    objects = [one for one in render(STRIMZI, release) if one["kind"] != "KafkaTopic"]
    assert [name(one) for one in objects if not LABEL.fullmatch(name(one))] == []
    # A pod of a StatefulSet bears its name and the hash of its revision as a label.
    assert all(len(name(one)) <= 52 for one in of(objects, "StatefulSet"))


@pytest.mark.parametrize(
    ("release", "called"), [("rl", "rl-sluice"), ("sluice", "sluice"), ("sluice-math", "sluice-math"), ("x" * 33, "")]
)
def test_an_ordinary_release_has_a_plain_name(release, called):
    (learner,) = of(render(BROKER, release), "StatefulSet")
    assert name(learner) == f"{called or release + '-sluice'}-learning"


@pytest.mark.parametrize("text", ["2024", "on", "no", "1e5", "0x10"])
def test_what_looks_like_a_number_or_a_truth_stays_text(text):
    secret = {"existingSecret": text}
    values = {
        "kafka": {
            "bootstrapServers": "k:9092",
            "tls": {"enabled": True, **secret, "certKey": text, "keyKey": text},
            "sasl": {"mechanism": "PLAIN", **secret, "usernameKey": text, "passwordKey": text},
        },
        "run": {"run": text},
        "image": {"pullSecrets": [text]},
        "doors": {"tls": {**secret, "serverName": text}, "tokens": secret},
        "model": {"tokenSecret": text, "cache": {"existingClaim": text}},
        "serviceAccount": {"name": text},
        "generation": {"priorityClassName": text, "runtimeClassName": text},
        "learning": {"storage": {"existingClaim": text}},
        "verification": {"code": {"enabled": True, "namespace": text}},
    }
    for one in render(values, "2024"):
        for version in (OLDEST, NEWEST):
            kubernetes_validate.validate(one, version, strict=True)
    values["topics"] = {"manage": "strimzi", "strimzi": {"cluster": text, "namespace": text}}
    for one in of(render(values, "2024"), "KafkaTopic"):
        assert {type(value) for value in one["metadata"]["labels"].values()} == {str}
        assert (one["metadata"]["labels"]["strimzi.io/cluster"], one["metadata"]["namespace"]) == (text, text)
    assert {labels["app.kubernetes.io/instance"] for _, labels, _ in pods(render(values, "2024"))} == {"2024"}


@pytest.mark.parametrize("field", ["run", "prefix"])
def test_a_run_whose_name_no_label_takes_is_refused(field):
    done = attempt(BROKER | {"run": {field: "a-"}})
    assert done.returncode != 0 and f"run.{field}" in done.stderr.replace("/", ".")


def test_a_dashboards_file_is_called_as_no_other_charts_is():
    # Grafana's sidecar puts the boards of all charts in one folder, each under its key.
    boards = [one for one in of(render(BROKER | DASHBOARDS), "ConfigMap") if "-dashboard-" in name(one)]
    keys = [key for one in boards for key in one["data"]]
    assert "sluice-overview.json" in keys and len(set(keys)) == len(keys) == len(boards)
    assert all(key == json.loads(one["data"][key])["uid"] + ".json" for one in boards for key in one["data"])
