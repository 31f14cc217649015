"""The four Dockerfiles: what every image promises, read from their text."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.audit_deps import locked

ROOT = Path(__file__).parents[1]
FILES = {path.parent.name: path.read_text() for path in sorted(ROOT.glob("services/*/Dockerfile"))}


def test_every_service_has_an_image():
    assert set(FILES) == {path.parent.name for path in ROOT.glob("services/*/service.py")}


@pytest.mark.parametrize("service", FILES)
def test_an_image_takes_any_base_and_runs_as_nobody_in_particular(service):
    lines = FILES[service].splitlines()
    assert lines[0].startswith("ARG BASE_IMAGE=python:") and lines[1].startswith("FROM ${BASE_IMAGE}")
    assert re.search(r"^USER 10001:10001$", FILES[service], re.M)
    stages = re.findall(r"^FROM (\S+)", FILES[service], re.M)
    assert stages[-1] == ("torch" if "torch" in stages else "base") and "build" in FILES[service]
    assert "image.sh sluice" in FILES[service]


def test_every_version_comes_from_the_lock_file():
    installs = re.findall(r"pip install (?:.|\\\n)*?$", (ROOT / "services/image.sh").read_text(), re.M)
    held = [one for one in installs if "--no-deps" not in one]
    assert len(installs) == 3 and len(held) == 2 and all("--constraint /build/constraints.txt" in one for one in held)


@pytest.mark.parametrize("service", FILES)
def test_what_is_copied_exists_and_is_not_ignored(service):
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", FILES[service], re.M):
        for source in sources.split():
            assert (ROOT / source).exists() and source.partition("/")[0] in allowed, source


def test_torch_is_one_layer_that_two_images_share_and_two_do_not_hold():
    stage = {name: re.search(r"FROM base AS torch.*?\n\n", text, re.S) for name, text in FILES.items()}
    assert stage["learning"] and stage["learning"].group() == stage["generation"].group()
    assert all("torch" not in FILES[name].replace("No torch", "") for name in ("difficulty", "verification"))


def test_an_image_holds_what_its_service_needs_and_no_more():
    needs = {name: re.search(r'image.sh needs "(.*)"', text)[1] for name, text in FILES.items()}
    assert all(need.endswith("${STORE:+,$STORE}") for need in needs.values()), "each reads claims"
    extras = {name: need.removesuffix("${STORE:+,$STORE}").split(",") for name, need in needs.items()}
    assert extras["difficulty"] == ["trace"] and extras["verification"] == ["trace", "checks"]
    assert "torch" in extras["learning"] and any(one.startswith("torch") for one in extras["generation"])


@pytest.mark.long  # asks the package index
@pytest.mark.parametrize("service", FILES)
def test_the_lock_file_holds_all_that_an_image_can_be_built_with(service, tmp_path):
    extras = re.search(r'image.sh needs "(.*)"', FILES[service])[1]
    extras = extras.replace("${ENGINE:+,$ENGINE}", ",vllm").replace("${STORE:+,$STORE}", ",s3").split(",")
    asked = [word for extra in extras for word in ("--extra", extra)]
    where = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
    lock, found = ROOT / "constraints.txt", tmp_path / "found.txt"
    command = [Path(sys.executable).with_name("uv"), "pip", "compile", "--quiet", *where, "--constraint", lock, *asked]
    done = subprocess.run([*command, "--output-file", found, ROOT / "pyproject.toml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(locked(found.read_text()).items()) <= set(locked(lock.read_text()).items())
