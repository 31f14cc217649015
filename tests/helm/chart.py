"""Renders the chart with the real Helm, and reads what came out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/sluice"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
BROKER = {"kafka": {"bootstrapServers": "k:9092"}}
STRIMZI = BROKER | {"topics": {"manage": "strimzi", "strimzi": {"cluster": "main"}}}
OLDEST, NEWEST = "1.27.0", "1.37.0"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SERVICES = ("generation", "verification", "difficulty", "learning")
PORTS = {"grpc": 50051, "metrics": 9090, "probe": 50052}


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm. Where it is missing the test is skipped, or fails where SLUICE_REQUIRE names it."""
    built = ROOT / "build/bin/helm"
    program = str(built) if built.exists() else shutil.which("helm")
    if program is None:
        say = pytest.fail if "helm" in os.environ.get("SLUICE_REQUIRE", "") else pytest.skip
        say("'helm' is not installed; `make helm` builds it")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def attempt(
    values: dict[str, Any] | Path, release: str = "r", kube: str = NEWEST, chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """`helm template` of these values."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        if not isinstance(values, Path):
            json.dump(values, file)  # PyYAML leaves text such as 1e5 without quotes, a number to Helm
            file.flush()
        path = values if isinstance(values, Path) else Path(file.name)
        return helm("template", release, str(chart), "-f", str(path), "--namespace", "rl", "--kube-version", kube)


def render(values: dict[str, Any] | Path, release: str = "r") -> list[dict[str, Any]]:
    """Every object of the release."""
    done = attempt(values, release)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, LOADER) if one]


def notes(values: dict[str, Any] | Path, folder: Path, release: str = "r") -> str:
    """What Helm says after an install, which it says to a cluster only: here as an object of a copied chart."""
    chart = shutil.copytree(CHART, folder / "sluice")
    told = 'kind: Notes\ntext: {{ include (print .Template.BasePath "/NOTES.txt") . | quote }}\n'
    (chart / "templates/notes.yaml").write_text(told)
    done = attempt(values, release, chart=chart)
    assert done.returncode == 0, done.stderr
    return next(one["text"] for one in yaml.load_all(done.stdout, LOADER) if one and one["kind"] == "Notes")


def of(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Those of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def job(values: dict[str, Any] | Path) -> dict[str, Any]:
    """The Job that starts the run."""
    (one,) = of(render(values), "Job")
    return one


def environment(spec: dict[str, Any]) -> dict[str, str]:
    """What a pod's containers are told; of a secret's value, the secret's name."""
    every = [variable for part in ("initContainers", "containers") for c in spec.get(part, []) for variable in c["env"]]
    return {v["name"]: v.get("value") or next(iter(v["valueFrom"].values())).get("name", "") for v in every}


def name(one: dict[str, Any]) -> str:
    return one["metadata"]["name"]


def home(one: dict[str, Any]) -> str:
    return one["metadata"].get("namespace", "rl")


def pods(objects: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(who, labels, spec) of every pod that the release makes."""
    found = [
        (name(one), one["spec"]["template"]["metadata"]["labels"], one["spec"]["template"]["spec"])
        for one in of(objects, "Deployment", "StatefulSet", "Job")
    ]
    found += [(name(one), one["metadata"]["labels"], one["spec"]) for one in of(objects, "Pod")]
    for one in of(objects, "RayCluster"):
        found += [(who, template["metadata"]["labels"], template["spec"]) for who, template in ray_pods(one)]
    return found


def ray_pods(cluster: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(who, template) of the pods that KubeRay makes."""
    groups = [("head", cluster["spec"]["headGroupSpec"])]
    groups += [(group["groupName"], group) for group in cluster["spec"]["workerGroupSpecs"]]
    return [(f"{name(cluster)}-{who}", group["template"]) for who, group in groups]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def chooses(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a selector of labels and expressions has a pod of these labels."""
    for one in selector.get("matchExpressions", []):
        if (labels.get(one["key"]) in one["values"]) is not (one["operator"] == "In"):
            return False
    return selects(selector["matchLabels"], labels)
