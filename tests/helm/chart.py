"""Renders the chart with the real Helm, and reads what came out."""

from __future__ import annotations

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


def attempt(values: dict[str, Any] | Path, release: str = "r", kube: str = NEWEST) -> subprocess.CompletedProcess[str]:
    """`helm template` of these values."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        if not isinstance(values, Path):
            yaml.safe_dump(values, file)
            file.flush()
        path = values if isinstance(values, Path) else Path(file.name)
        return helm("template", release, str(CHART), "-f", str(path), "--namespace", "rl", "--kube-version", kube)


def render(values: dict[str, Any] | Path, release: str = "r") -> list[dict[str, Any]]:
    """Every object of the release."""
    done = attempt(values, release)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.load_all(done.stdout, LOADER) if one]


def of(objects: list[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    """Those of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


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
    return found + [(name(one), one["metadata"]["labels"], one["spec"]) for one in of(objects, "Pod")]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()
